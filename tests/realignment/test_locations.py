"""Where anchors lie: subfolders, revisions, variants and files of folders and of repositories on the hub."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import deradiff
from deradiff.errors import AnchorError, DeradiffError
from deradiff.runs.fingerprint import fingerprint

from . import loras
from .hub import connected, serving
from .original_names import original_weights
from .pipelines import Subject, known, replaced

WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_unet(folder: Path, **settings: Any) -> Path:
    known("sd").anchors["unet"].save_pretrained(folder, **settings)  # pyright: ignore[reportCallIssue]
    return folder


def aligned(it: Subject) -> torch.Tensor:
    with replaced(it.pipe, it.anchors):
        return it.run()


def single_file(folder: Path) -> Path:
    weights = original_weights(known("sd").anchors["unet"])
    others = {"first_stage_model.decoder.conv_in.weight": torch.ones(2), "cond_stage_model.logit_scale": torch.ones(1)}
    save_file({**weights, **others}, folder / "finetuned.safetensors")
    return folder


def weights_alone(folder: Path) -> Path:
    (save_unet(folder / "unet") / WEIGHTS).rename(folder / "weights.safetensors")
    shutil.rmtree(folder / "unet")
    return folder


PLACES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a subfolder of a folder of several": (
        lambda f: save_unet(f / "runs" / "last" / "unet").parents[2],
        {"subfolder": "runs/last"},
    ),
    "the network's own subfolder": (lambda f: save_unet(f / "unet").parent, {"subfolder": "unet"}),
    "an fp16 variant beside the plain one": (
        lambda f: (save_unet(f), save_unet(f, variant="fp16"))[0],
        {"variant": "fp16"},
    ),
    "shards of a variant": (lambda f: save_unet(f, variant="fp16", max_shard_size="100KB"), {}),
    "a single file of Stable Diffusion": (single_file, {}),
    "a single file by its name": (
        lambda f: (save_unet(f / "unet"), single_file(f))[1],
        {"weight_name": "finetuned.safetensors"},
    ),
    "weights without a config": (weights_alone, {}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoint_is_found_where_it_lies(place: str, tmp_path: Path) -> None:
    it = known("sd")
    make, location = PLACES[place]
    expected, halves = aligned(it), "variant" in place
    with deradiff.realign(it.pipe, make(tmp_path), lam=1.0, **location):
        assert torch.allclose(it.run(), expected, atol=1e-2 if halves else 1e-4)
    assert torch.equal(it.run(), it.plain)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ({"variant": "bf16"}, "variant 'bf16'.*fp16, the plain one|variant 'bf16'.*the plain one, fp16"),
        ({"weight_name": "none.safetensors"}, "no file 'none.safetensors'; it holds"),
        ({"subfolder": "elsewhere"}, "elsewhere can't be listed"),
    ],
)
def test_what_is_not_there_is_named(location: dict[str, Any], words: str, tmp_path: Path) -> None:
    save_unet(tmp_path)
    save_unet(tmp_path, variant="fp16")
    with pytest.raises(AnchorError, match=words):
        deradiff.realign(known("sd").pipe, tmp_path, **location)


def test_a_location_that_an_anchor_does_not_have_is_an_error(tmp_path: Path) -> None:
    it = known("sd")
    lora = loras.save(it.pipe, "unet", tmp_path / "lora")
    file = lora / "pytorch_lora_weights.safetensors"
    cases: tuple[tuple[Any, dict[str, Any], str], ...] = (
        (it.anchors["unet"], {"subfolder": "unet"}, "subfolder unet: expected an anchor in a folder or on the hub"),
        (lora, {"revision": "v2"}, "is on this machine and has no revision 'v2'"),
        (lora, {"variant": "fp16"}, "has no variants; leave 'fp16' out"),
        (file, {"weight_name": file.name}, "is a file, in which there is no weight_name"),
        (lora, {"subfolder": "../lora"}, "subfolder is '../lora': expected a path inside the folder"),
        (lora, {"variant": "fp16", "weight_name": file.name}, "leave one out"),
    )
    for anchor, location, words in cases:
        with pytest.raises(DeradiffError, match=words):
            deradiff.realign(it.pipe, anchor, **location)
    assert torch.equal(it.run(), it.plain)


def test_several_loras_in_a_folder_are_distinguished_by_name(tmp_path: Path) -> None:
    it = known("sd")
    for name in ("one", "two"):
        file = loras.save(it.pipe, "unet", tmp_path / name) / "pytorch_lora_weights.safetensors"
        file.rename(tmp_path / f"{name}.safetensors")
        (tmp_path / name).rmdir()
    with pytest.raises(AnchorError, match=r"several files, one.safetensors, two.safetensors.*weight_name"):
        deradiff.realign(it.pipe, tmp_path)
    deradiff.realign(it.pipe, tmp_path, weight_name="two.safetensors").remove()


def ask(name: str, **location: Any) -> str:
    """What becomes of an anchor on the hub."""
    it = known("sd")
    try:
        with deradiff.realign(it.pipe, name, lam=1.0, **location):
            moved = not torch.equal(it.run(), it.plain)
    except DeradiffError as error:
        return str(error)
    assert torch.equal(it.run(), it.plain)
    known_by_hash = fingerprint(name) is not None or "revision" in location  # recipes have no revision
    return "taken" if moved and known_by_hash else "not taken"


def test_repositories_on_the_hub_are_listed_and_only_what_is_needed_is_fetched(tmp_path: Path) -> None:
    it = known("sd")
    lora = loras.save(it.pipe, "unet", tmp_path / "lora")
    (lora / "pytorch_lora_weights.safetensors").rename(lora / "my-dpo.safetensors")
    (lora / "training.bin").write_bytes(b"0" * 10)
    halves = save_unet(tmp_path / "halves" / "unet", variant="fp16").parent
    both = save_unet(tmp_path / "both" / "unet").parent
    save_unet(both / "unet", variant="fp16")
    (both / "unet" / "model.onnx").write_bytes(b"0" * 10)
    inside = save_unet(tmp_path / "inside" / "step-100" / "unet").parents[1]
    pickles = tmp_path / "pickles"
    pickles.mkdir()
    (pickles / "lora.bin").write_bytes(b"0")
    names = {"a/lora": lora, "a/halves": halves, "a/both": both, "a/inside": inside, "a/pickles": pickles}
    with ExitStack() as stack:
        with serving(names) as (address, fetched):
            stack.enter_context(connected(address, tmp_path / "cache"))
            assert ask("a/lora") == "taken"
            assert ask("a/halves", revision="v2") == "taken"
            assert ask("a/inside", subfolder="step-100") == "taken"
            assert ask("a/both") == "taken"
            assert "pickles" in ask("a/pickles")
            assert "no revision 'v9'" in ask("a/lora", revision="v9")
            assert "no such repository" in ask("a/nothing")
        assert ask("a/lora") == "taken"  # the server is gone
        assert "not on the hub or in its cache" in ask("a/never-fetched")
    halved = "unet/diffusion_pytorch_model.fp16.safetensors"
    needed = ["my-dpo.safetensors", "unet/config.json", halved, f"step-100/unet/{WEIGHTS}", f"unet/{WEIGHTS}"]
    assert sorted({*fetched}) == sorted([*needed, "step-100/unet/config.json"])
    assert fetched.count(halved) == 1  # and not of the repository that has the plain weights too

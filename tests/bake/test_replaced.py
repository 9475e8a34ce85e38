"""A folder holds one bake: what an earlier one left goes when another comes, and stays where that fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.runs.painted import painted
from tests.runs.small_runs import contents

import deradiff
from deradiff.bake import bake, bake_weights, write_lora
from deradiff.errors import BakeError, RewardError

from .pipelines import PROMPTS, build, distance, latents, lora

BESIDE = {"README.md", "bake.html"}
FILES = {
    "diffusers": {"pytorch_lora_weights.safetensors"},
    "kohya": {"out.safetensors"},
    "peft": {"adapter_model.safetensors", "adapter_config.json"},
    "checkpoint": {"unet", "scheduler", "deradiff.json"},
}


@pytest.mark.parametrize("order", [["diffusers", "kohya", "checkpoint"], ["checkpoint", "peft", "diffusers"]])
def test_a_bake_in_another_format_is_what_is_loaded(order: list[Any], tmp_path: Path) -> None:
    pipe, out = build(), tmp_path / "out"
    anchor = lora(pipe, tmp_path / "anchor")
    for number, format in enumerate(order):
        lam = 1.0 - 0.4 * number
        bake(pipe, anchor, lam, out, PROMPTS, format=format)
        assert {path.name for path in out.iterdir()} == FILES[format] | BESIDE
        with deradiff.realign(pipe, anchor, lam, policy=deradiff.Weights()):
            expected = latents(pipe)
        with deradiff.realign(pipe, out, 1.0):
            assert distance(latents(pipe), expected) < 1e-4


def test_another_rank_and_another_layout_replace_a_lora_that_was_written_alone(tmp_path: Path) -> None:
    pipe, out = build(), tmp_path / "out"
    update = bake_weights(pipe, lora(pipe, tmp_path / "anchor"), 0.5)
    for format in ("peft", "kohya", "diffusers"):
        write_lora(pipe, update, out, format, card={})
        assert {path.name for path in out.iterdir()} == FILES[format]


def test_a_folder_has_one_name_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, out = build(), tmp_path / "out"
    anchor = lora(pipe, tmp_path / "anchor")
    out.mkdir()
    monkeypatch.chdir(out)
    bake(pipe, anchor, 0.5, ".", PROMPTS, format="kohya")
    assert {path.name for path in out.iterdir()} == FILES["kohya"] | BESIDE
    (tmp_path / "link").symlink_to(out)
    bake(pipe, anchor, 0.5, tmp_path / "link", PROMPTS, format="kohya")
    bake(pipe, anchor, 0.5, out, PROMPTS, format="peft")
    assert {path.name for path in out.iterdir()} == FILES["peft"] | BESIDE


def test_what_fails_after_the_weights_were_made_leaves_the_earlier_bake(tmp_path: Path) -> None:
    def broken(pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        raise ValueError("no")

    pipe, out = build(), tmp_path / "out"
    anchor = lora(pipe, tmp_path / "anchor")
    with pytest.raises(RewardError):
        bake(pipe, anchor, 0.5, out, PROMPTS, rewards={"broken": broken})
    assert not out.exists()
    bake(pipe, anchor, 0.5, out, PROMPTS)
    before = contents(out)
    with pytest.raises(RewardError):
        bake(pipe, anchor, 1.0, out, PROMPTS, format="kohya", rewards={"broken": broken})
    assert contents(out) == before


def test_weights_of_another_program_and_a_runs_images_are_left_alone(tmp_path: Path) -> None:
    pipe, out = build(), tmp_path / "out"
    anchor = lora(pipe, tmp_path / "anchor")
    out.mkdir()
    save_file({"a.lora_A.weight": torch.zeros(1)}, out / "adapter_model.safetensors")
    before = contents(out)
    with pytest.raises(BakeError, match=r"weights that deradiff didn't write \(adapter_model.safetensors\)"):
        bake(pipe, anchor, 0.5, out, PROMPTS)
    assert contents(out) == before
    pipe.unet.save_pretrained(tmp_path / "other" / "unet")
    with pytest.raises(BakeError, match=r"weights that deradiff didn't write \(unet\)"):
        bake(pipe, anchor, 0.5, tmp_path / "other", PROMPTS)
    pipe.unet.save_pretrained(tmp_path / "mine" / "my-unet")
    bake(pipe, anchor, 0.5, tmp_path / "mine", PROMPTS, format="checkpoint")
    bake(pipe, anchor, 0.5, tmp_path / "mine", PROMPTS)
    assert {path.name for path in (tmp_path / "mine").iterdir()} == FILES["diffusers"] | BESIDE | {"my-unet"}
    (tmp_path / "other" / "deradiff.json").write_text('{"beta": 1.0}')  # a user's card makes no weights ours
    with pytest.raises(BakeError, match="deradiff didn't write"):
        bake(pipe, anchor, 0.5, tmp_path / "other", PROMPTS)
    run = tmp_path / "run"
    painted(run, prompts=("a cat",), seeds=(0,), lams=(0.0,))
    with pytest.raises(BakeError, match="is a part of the run in"):
        bake(pipe, anchor, 0.5, run / "images", PROMPTS)
    bake(pipe, anchor, 0.5, run / "baked", PROMPTS)

"""What a model is: the content of its weights and configs, whatever it is called and however it is stored."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deradiff import testbed
from deradiff.errors import RunFolderError
from deradiff.runs import fingerprint as hashing
from deradiff.runs.fingerprint import fingerprint, state_fingerprint, with_hashes
from deradiff.runs.recipe import Recipe
from deradiff.writing import write_whole

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tmp_path: Path, models: tuple[str, str]) -> Path:
    return Path(shutil.copytree(models[0], tmp_path / "model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERADIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "cache" / "hashes-1.json"


def saved_otherwise(folder: Path) -> None:
    weights = dict(reversed(load_file(folder / UNET).items()))
    save_file({name: own.clone() for name, own in weights.items()}, folder / UNET, metadata={"format": "pt", "me": "x"})


def in_shards(folder: Path) -> None:
    weights = load_file(folder / UNET)
    (folder / UNET).unlink()
    names = sorted(weights)
    for number, part in enumerate((names[:9], names[9:])):
        file = folder / "unet" / f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors"
        save_file({name: weights[name].clone() for name in part}, file)


def with_other_versions(folder: Path) -> None:
    for file in folder.rglob("*.json"):
        told = json.loads(file.read_text())
        if isinstance(told, dict) and "_class_name" in told:
            file.write_text(json.dumps({**told, "_diffusers_version": "9", "_name_or_path": "/elsewhere"}, indent=3))


def with_what_does_not_count(folder: Path) -> None:
    (folder / "README.md").write_text("words")
    (folder / "deradiff.json").write_text('{"beta": 3}')
    shutil.copy(folder / UNET, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")


def unchanged(folder: Path) -> None:
    for file in folder.rglob("*"):
        os.utime(file, (1, 1))


SAME = [unchanged, saved_otherwise, in_shards, with_other_versions, with_what_does_not_count]


@pytest.mark.parametrize("change", SAME)
def test_the_same_weights_stored_otherwise_are_the_same_model(model: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(str(model))
    assert before is not None
    change(model)
    assert fingerprint(str(model)) == before
    moved = model.rename(model.with_name("moved"))
    assert fingerprint(str(moved)) == before


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], file: str = UNET) -> None:
    weights = {name: own.clone() for name, own in load_file(folder / file).items()}
    change(weights)
    save_file(weights, folder / file)


def first_weight(folder: Path) -> None:
    edit(folder, lambda weights: next(iter(weights.values())).flatten()[0].add_(1e-3))


def names_exchanged(folder: Path) -> None:
    def exchange(weights: dict[str, torch.Tensor]) -> None:
        one, other = [name for name in sorted(weights) if weights[name].ndim == 1][:2]
        assert weights[one].shape == weights[other].shape
        weights[one], weights[other] = weights[other], weights[one] + 1e-3

    edit(folder, exchange)


def a_dtype(folder: Path) -> None:
    edit(folder, lambda weights: weights.update({name: own.half() for name, own in weights.items()}))


def a_shape(folder: Path) -> None:
    def reshaped(weights: dict[str, torch.Tensor]) -> None:
        name = next(name for name, own in weights.items() if own.ndim == 2)
        weights[name] = weights[name].T.contiguous().reshape(-1, 2)

    edit(folder, reshaped)


def of_the_vae(folder: Path) -> None:
    edit(
        folder,
        lambda weights: next(iter(weights.values())).add_(1),
        "vae/diffusion_pytorch_model.safetensors",
    )


def a_setting(folder: Path) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "beta_end": 0.5}))


def a_part_renamed(folder: Path) -> None:
    (folder / "unet").rename(folder / "transformer")


OTHER = [first_weight, names_exchanged, a_dtype, a_shape, of_the_vae, a_setting, a_part_renamed]


@pytest.mark.parametrize("change", OTHER)
def test_whatever_images_depend_on_is_another_model(model: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(str(model))
    change(model)
    assert fingerprint(str(model)) not in (None, before)


def test_other_weights_of_the_same_size_and_time_are_noticed(model: Path, models: tuple[str, str]) -> None:
    """As archives, images of containers and rsync leave them."""
    os.utime(model / UNET, (1, 1))
    before = fingerprint(str(model))
    other = Path(models[1]) / UNET
    assert other.stat().st_size == (model / UNET).stat().st_size
    (model / UNET).write_bytes(other.read_bytes())
    os.utime(model / UNET, (1, 1))
    assert fingerprint(str(model)) != before


def test_a_file_is_hashed_once(model: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    hashed: list[str] = []
    hash_tensors = hashing._hash_tensors
    monkeypatch.setattr(hashing, "_hash_tensors", lambda file: hashed.append(file.name) or hash_tensors(file))
    first = fingerprint(str(model))
    count = len(hashed)
    assert count == 3  # of unet, vae and text encoder
    assert fingerprint(str(model)) == first
    assert len(hashed) == count
    first_weight(model)
    assert fingerprint(str(model)) != first
    assert len(hashed) == count + 1
    assert cache.is_file()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1}'])
def test_a_damaged_cache_costs_time_alone(model: Path, content: bytes, cache: Path, tmp_path: Path) -> None:
    before = fingerprint(str(model))
    found = [cache, tmp_path / "xdg" / "deradiff" / "hashes-1.json"]
    for path in found:
        write_whole(path, content)
    assert fingerprint(str(model)) == before


def test_a_lora_is_what_it_does() -> None:
    anchors = {name: testbed.anchor_path(name) for name in testbed.anchor_names()}
    assert len({fingerprint(str(path)) for path in anchors.values()}) == len(anchors)


def test_a_lora_scaled_otherwise_is_another_one(tmp_path: Path) -> None:
    """Its strength stands in the metadata, beside the weights."""
    source = Path(testbed.anchor_path()) / "pytorch_lora_weights.safetensors"
    weights, found = load_file(source), set[str | None]()
    for alpha in (4, 8):
        folder = tmp_path / f"{alpha}"
        folder.mkdir()
        told = {"unet.r": 4, "unet.lora_alpha": alpha}
        save_file(weights, folder / source.name, metadata={"lora_adapter_metadata": json.dumps(told)})
        found.add(fingerprint(str(folder)))
    assert len(found) == 2


@pytest.mark.parametrize("name", ["", " ", "nobody/nothing", "no such thing", "/no/where", "a" * 5000])
def test_what_is_not_here_has_no_hash(name: str) -> None:
    assert fingerprint(name) is None


def test_hashes_are_filled_in_where_they_can_be_computed(models: tuple[str, str]) -> None:
    found = with_hashes(Recipe(model=models[0], anchor="nobody/nothing", anchor_hash="as it was"))
    assert found.model_hash == fingerprint(models[0])
    assert found.anchor_hash == "as it was"
    embedded = with_hashes(Recipe(model="embedded", anchor="embedded"))
    assert embedded.model_hash == fingerprint(str(testbed.pipeline_path()))
    assert embedded.anchor_hash == fingerprint(str(testbed.anchor_path()))


def cut(content: bytes) -> bytes:
    return content[:-100]


def no_weights(content: bytes) -> bytes:
    return b"nonsense" * 100


def nothing(content: bytes) -> bytes:
    return b""


def header(changes: Any) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        told = json.dumps(changes).encode()
        return len(told).to_bytes(8, "little") + told

    return change


BROKEN = [
    cut,
    no_weights,
    nothing,
    header([]),
    header({"a": 1}),
    header({"a": {"dtype": "F32", "shape": [1]}}),
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}),
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}),
    header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-99, 4]}}),
]


@pytest.mark.parametrize("harm", BROKEN, ids=range(len(BROKEN)))
def test_a_damaged_file_is_reported(model: Path, harm: Callable[[bytes], bytes]) -> None:
    (model / UNET).write_bytes(harm((model / UNET).read_bytes()))
    with pytest.raises(RunFolderError, match=r"diffusion_pytorch_model\.safetensors"):
        fingerprint(str(model))


def test_a_damaged_config_is_reported(model: Path) -> None:
    (model / "unet" / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"unet/config\.json"):
        fingerprint(str(model))


def test_models_in_memory_are_their_tensors() -> None:
    def state(**changes: Any) -> dict[str, dict[str, torch.Tensor]]:
        return {"unet": {"a": torch.ones(2, 3), "b": torch.zeros(()), **changes}}

    before = state_fingerprint(state())
    assert state_fingerprint({"unet": dict(reversed(state()["unet"].items()))}) == before
    others = [
        state(a=torch.full((2, 3), 1.1)),
        state(a=torch.ones(3, 2)),
        state(a=torch.ones(2, 3).double()),
        state(c=torch.ones(1)),
        {"vae": state()["unet"]},
        {"unet": {"b": torch.ones(2, 3), "a": torch.zeros(())}},
    ]
    found = [state_fingerprint(own) for own in others]
    assert len({before, *found}) == len(found) + 1
    half = {"unet": {"a": torch.ones(3, 2, dtype=torch.bfloat16).T, "c": torch.tensor([True, False])}}
    assert state_fingerprint(half) == state_fingerprint(half)

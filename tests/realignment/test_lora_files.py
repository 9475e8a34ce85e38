"""LoRA files as people have them: whatever their layers are called, lam = 1 is the whole LoRA, or there is an error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

import deradiff
from deradiff.errors import AnchorError

from .pipelines import Subject, replaced, subject
from .trace import difference, snapshot

Weights = dict[str, Tensor]
RANK, ALPHA = 4, 8
LAYERS = ["to_q", "to_v", "conv1"]


def trained(it: Subject, config: Any = None) -> tuple[Any, Weights]:
    """A UNet with a LoRA that matters, and the LoRA's weights in PEFT's names."""
    unet: Any = copy.deepcopy(it.pipe.unet)
    torch.manual_seed(0)
    unet.add_adapter(config or LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS), adapter_name="a")
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return unet, {name: value.contiguous() for name, value in get_peft_model_state_dict(unet, adapter_name="a").items()}


def old(name: str) -> str:
    return name.replace("lora_A.weight", "lora.down.weight").replace("lora_B.weight", "lora.up.weight")


def kohya(weights: Weights) -> Weights:
    alphas = {
        f"{name.rsplit('.lora_A', 1)[0]}.alpha": torch.tensor(float(ALPHA)) for name in weights if "lora_A" in name
    }
    named = {f"unet.{name}": value for name, value in weights.items()}
    converted = convert_state_dict_to_kohya(named)
    underscored = {f"lora_unet_{name.removesuffix('.alpha').replace('.', '_')}.alpha": v for name, v in alphas.items()}
    return {**converted, **underscored}


# how a file names its layers; alpha is 8 at rank 4, which only some of them can say
LAYOUTS: dict[str, Callable[[Weights], Weights]] = {
    "mixed conventions": lambda w: {f"unet.{n if 'conv1' in n else old(n)}": v for n, v in w.items()},
    "no component": lambda w: w,
    "ComfyUI's prefix": lambda w: {f"diffusion_model.{n}": v for n, v in w.items()},
    "PEFT's prefix": lambda w: {f"base_model.model.{n}": v for n, v in w.items()},
    "the old names": lambda w: {f"unet.{old(n)}": v for n, v in w.items()},
}


def scaled(weights: Weights, factor: float) -> Weights:
    return {name: value * factor if "lora_B" in name else value for name, value in weights.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_lora_is_read_however_its_layers_are_called(layout: str, tmp_path: Path) -> None:
    it = subject("sd")
    unet, weights = trained(it)
    with replaced(it.pipe, {"unet": unet}):
        expected = it.run()
    plain, before = it.run(), snapshot(it.pipe)
    file = tmp_path / "any name.safetensors"
    save_file(LAYOUTS[layout](scaled(weights, ALPHA / RANK)), file)  # a file without alphas: scale 1
    for place in (file, tmp_path):
        with deradiff.realign(it.pipe, place, lam=1.0) as handle:
            assert relative(it.run(), expected, plain) < 1e-3
            handle.lam = 0.0
            assert torch.equal(it.run(), plain)
    assert difference(before, snapshot(it.pipe)) == []


def relative(got: Tensor, expected: Tensor, plain: Tensor) -> float:
    return float((got - expected).norm() / (expected - plain).norm())


@pytest.mark.parametrize("layout", [kohya])
def test_alphas_of_a_file_count(layout: Callable[[Weights], Weights], tmp_path: Path) -> None:
    it = subject("sd")
    unet, weights = trained(it)
    with replaced(it.pipe, {"unet": unet}):
        expected = it.run()
    plain = it.run()
    save_file(layout(weights), tmp_path / "lora.safetensors")
    with deradiff.realign(it.pipe, tmp_path, lam=1.0):
        assert relative(it.run(), expected, plain) < 1e-3


@pytest.mark.parametrize("config", [LoHaConfig, LoKrConfig])
@pytest.mark.parametrize("of_peft", [True, False])
def test_loha_and_lokr_are_read(config: Any, of_peft: bool, tmp_path: Path) -> None:
    it = subject("sd")
    torch.manual_seed(1)
    settings = {"r": 4, "alpha": 4, "target_modules": ["to_q", "to_v"], "init_weights": False}
    model: Any = get_peft_model(copy.deepcopy(it.pipe.unet), config(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "hada_" in name or "lokr_" in name:
                parameter.mul_(0.3)
    with replaced(it.pipe, {"unet": model.get_base_model()}):
        expected = it.run()
    plain, before = it.run(), snapshot(it.pipe)
    model.save_pretrained(str(tmp_path))
    if not of_peft:  # LyCORIS: kohya's names, and no config beside
        weights = load_file(tmp_path / "adapter_model.safetensors")
        for file in tmp_path.iterdir():
            file.unlink()
        split = {name: name.removeprefix("base_model.model.").rsplit(".", 1) for name in weights}
        named = {f"lycoris_unet_{m.replace('.', '_')}.{part}": weights[name] for name, (m, part) in split.items()}
        save_file(named, tmp_path / "lycoris.safetensors")
    with deradiff.realign(it.pipe, tmp_path, lam=1.0) as handle:
        assert relative(it.run(), expected, plain) < 1e-3
        handle.lam = 0.0
        assert torch.equal(it.run(), plain)
    assert difference(before, snapshot(it.pipe)) == []


def nan(weights: Weights) -> Weights:
    first = next(iter(weights))
    return {**weights, first: torch.full_like(weights[first], float("nan"))}


BROKEN: dict[str, tuple[Callable[[Weights], Weights], dict[str, str] | None, str]] = {
    "NaN": (nan, None, "NaN or infinite"),
    "NaN in float8": (lambda w: {n: v.to(torch.float8_e4m3fn) for n, v in nan(w).items()}, None, "NaN or infinite"),
    "whole numbers": (lambda w: {n: v.to(torch.int8) for n, v in w.items()}, None, "is of torch.int8"),
    "complex numbers": (lambda w: {n: v.to(torch.complex64) for n, v in w.items()}, None, "is of torch.complex64"),
    "half of a layer": (lambda w: dict(list(w.items())[1:]), None, "without its"),
    "another network's layers": (
        lambda w: {f"unet.{n.replace('down_blocks.0', 'down_blocks.7')}": v for n, v in w.items()},
        None,
        "layers",
    ),
    "other widths": (lambda w: {n: torch.ones(3, 3) for n in w}, None, "doesn't fit"),
    "whole weights beside": (
        lambda w: {**w, "conv_in.diff": torch.ones(2, 2)},
        None,
        "no low-rank update.*conv_in.diff",
    ),
    "a DoRA in an old layout": (
        lambda w: {**w, f"{next(iter(w)).split('.lora_')[0]}.dora_scale": torch.ones(4)},
        None,
        "DoRA",
    ),
    "metadata that means nothing": (
        lambda w: w,
        {"lora_adapter_metadata": '{"unet.bias": 1.5}'},
        "doesn't fit|metadata",
    ),
    "metadata that is no JSON": (lambda w: w, {"lora_adapter_metadata": "["}, "metadata"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_lora_that_cannot_be_read_whole_leaves_the_pipe_as_it_was(what: str, tmp_path: Path) -> None:
    it = subject("sd")
    change, metadata, words = BROKEN[what]
    save_file(change(trained(it)[1]), tmp_path / "lora.safetensors", metadata)
    plain, before = it.run(), snapshot(it.pipe)
    with pytest.raises(AnchorError, match=words) as caught:
        deradiff.realign(it.pipe, tmp_path)
    assert len(str(caught.value).splitlines()) < 4
    assert difference(before, snapshot(it.pipe)) == []
    assert torch.equal(it.run(), plain)


@pytest.mark.parametrize("extra", [{"modules_to_save": ["conv_out"]}, {"bias": "lora_only"}])
def test_what_a_lora_trains_beside_its_layers_is_refused(extra: dict[str, Any], tmp_path: Path) -> None:
    it = subject("sd")
    config = LoraConfig(r=4, target_modules=["to_q", "conv1"], **extra)
    get_peft_model(copy.deepcopy(it.pipe.unet), config).save_pretrained(str(tmp_path))
    before = snapshot(it.pipe)
    with pytest.raises(AnchorError, match="can't be switched off"):
        deradiff.realign(it.pipe, tmp_path)
    assert difference(before, snapshot(it.pipe)) == []

"""Diffusers' modular pipelines: realigned as they are, and by a guider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import ComponentSpec, ModularPipeline, StableDiffusionXLAutoBlocks
from tests.realignment import loras
from tests.zoo import ZOO, anchor_of
from torch import Tensor, nn

import deradiff
from deradiff.anchor.adapters import active_adapters
from deradiff.errors import LamError, RealignError
from deradiff.guider import RealignmentGuidance
from deradiff.mixture import lerp


def modular(blocks: Any = None) -> Any:
    """SDXL in blocks, of the zoo's tiny networks."""
    parts = ZOO["sdxl"].build().components
    pipe: Any = (blocks or StableDiffusionXLAutoBlocks()).init_pipeline()
    pipe.update_components(**{name: parts[name] for name in pipe.component_names if parts.get(name) is not None})
    return pipe


def sample(pipe: Any, output: Any = "images", **changes: Any) -> Any:
    seeds = [torch.Generator().manual_seed(seed) for seed in range(2 * changes.get("num_images_per_prompt", 1))]
    call = ZOO["sdxl"].call(2) | {"generator": seeds} | changes
    del call["guidance_scale"]
    return pipe(output=output, **call)


def with_guider(guider: Any, active: bool = False) -> Any:
    """A modular pipeline with a LoRA "style" that is on, and one "aligned" that is off unless it is to be active."""
    pipe = modular()
    loras.add(pipe.unet, "style", ("to_v",), seed=5)
    loras.add(pipe.unet, "aligned")
    pipe.unet.set_adapters(["style", "aligned"] if active else ["style"])
    pipe.update_components(guider=guider)
    return pipe


def test_realign_takes_a_modular_pipeline_as_it_is() -> None:
    pipe = modular()
    plain, reference, aligned = sample(pipe), pipe.unet, anchor_of(pipe.unet)
    pipe.update_components(unet=aligned)
    anchors = sample(pipe)
    pipe.update_components(unet=reference)
    with deradiff.realign(pipe, aligned, lam=[0.0, 1.0]) as handle:
        first, second = sample(pipe)
        assert torch.equal(first, plain[0])
        assert torch.equal(second, anchors[1])
        handle.lam = 0.5
        assert not torch.equal(sample(pipe), plain)
    assert torch.equal(sample(pipe), plain)


def test_particles_know_the_inputs_and_outputs_of_blocks() -> None:
    whole: Any = ZOO["sdxl"].build()
    pipe = modular()
    for one in (whole, pipe):
        one.scheduler = DDPMScheduler.from_config(one.scheduler.config)  # draws noise
    aligned, weights = anchor_of(pipe.unet), list[Tensor]()
    for one, output in ((whole, {}), (pipe, {"output": ["images", "latents"]})):
        seeds = [torch.Generator().manual_seed(seed) for seed in range(4)]
        call = ZOO["sdxl"].call(2) | {"guidance_scale": 7.5, "num_images_per_prompt": 2, "generator": seeds}
        with deradiff.realign(one, aligned, lam=0.5, particles=2) as handle:
            images = one(**call, **output)
            assert handle.paths is not None
            assert handle.paths.log_weights is not None
            weights.append(handle.paths.log_weights)
    assert len(images["images"]) == len(images["latents"]) == 4
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-3)
    with deradiff.realign(pipe, aligned, particles=2), pytest.raises(RealignError, match="give output="):
        sample(pipe, None)


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_at_0_and_1_the_guider_gives_the_plain_pipeline_without_and_with_the_lora(scale: float) -> None:
    for lam, active in ((0.0, False), (1.0, True)):
        plain = sample(with_guider(ClassifierFreeGuidance(scale), active))
        for otherwise in (False, True):  # what is active beside the guider makes no difference
            pipe = with_guider(RealignmentGuidance("aligned", lam, scale), otherwise)
            assert torch.equal(sample(pipe), plain)


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_the_guider_mixes_as_realign_does(scale: float) -> None:
    pipe = with_guider(ClassifierFreeGuidance(scale))
    with deradiff.realign(pipe, "aligned", lam=0.3):
        expected = sample(pipe)
    pipe.update_components(guider=RealignmentGuidance("aligned", 0.3, scale))
    torch.testing.assert_close(sample(pipe), expected, rtol=1e-4, atol=1e-5)


def test_a_part_of_the_steps_is_guided_and_all_are_mixed() -> None:
    calls: list[bool] = []
    pipe = with_guider(RealignmentGuidance("aligned", 0.5, stop=0.5))
    pipe.unet.register_forward_pre_hook(lambda *_: calls.append("aligned" in active_adapters(pipe.unet)))
    sample(pipe)
    assert calls == [False, True, False, True, False, True]  # two steps, guidance at the first


class Stop(BaseException):
    """As an interrupt from the keyboard."""


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_the_denoiser_is_as_it_was_after_a_call_that_raises(call: int) -> None:
    pipe = with_guider(RealignmentGuidance("aligned", 0.5))
    kind, state = type(pipe.unet), adapter_state(pipe.unet)
    before = sample(pipe)
    count = 0

    def stop(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise Stop

    hook = pipe.unet.register_forward_pre_hook(stop)
    with pytest.raises(Stop):
        sample(pipe)
    hook.remove()
    assert type(pipe.unet) is kind
    assert adapter_state(pipe.unet) == state
    assert torch.equal(sample(pipe), before)


def adapter_state(denoiser: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in denoiser.modules() if isinstance(layer, BaseTunerLayer)]
    flags = [parameter.requires_grad for parameter in denoiser.parameters()]
    return [(list(layer.active_adapters), layer.disable_adapters) for layer in layers] + flags


def test_what_the_guider_does_not_support_is_refused() -> None:
    for lam in (float("nan"), "0.5", [0.5]):
        with pytest.raises(LamError, match="one finite number"):
            RealignmentGuidance("aligned", lam)  # pyright: ignore[reportArgumentType]
    pipe = with_guider(RealignmentGuidance("else"))
    with pytest.raises(RealignError, match=r"no LoRA 'else'.*'aligned', 'style'"):
        sample(pipe)
    pipe.update_components(guider=RealignmentGuidance("aligned"))
    with deradiff.realign(pipe, "aligned"), pytest.raises(RealignError, match="realigned already"):
        sample(pipe)
    pipe.unet.fuse_lora(adapter_names=["aligned"])
    with pytest.raises(RealignError, match="fused"):
        sample(pipe)


def test_a_guider_is_saved_and_loaded_with_its_pipeline(tmp_path: Path) -> None:
    RealignmentGuidance("aligned", 0.25, 3.0).save_pretrained(tmp_path / "guider")
    spec = ComponentSpec(
        "guider",
        RealignmentGuidance,
        pretrained_model_name_or_path=str(tmp_path),
        subfolder="guider",
        default_creation_method="from_pretrained",
    )
    pipe = modular()
    pipe.update_components(guider=spec.load())
    pipe.save_config(str(tmp_path))
    assert json.loads((tmp_path / "modular_model_index.json").read_text())["guider"][:2] == [
        "deradiff.guider",
        "RealignmentGuidance",
    ]
    again: Any = ModularPipeline.from_pretrained(str(tmp_path))
    again.load_components("guider")
    assert type(again.guider) is RealignmentGuidance
    assert (again.guider.adapter, again.guider.lam, again.guider.guidance_scale) == ("aligned", 0.25, 3.0)
    other: Any = again.guider.new(lam=0.75)
    assert (other.adapter, other.lam) == ("aligned", 0.75)


def test_the_guider_gives_mixtures_of_its_branches() -> None:
    tensors: list[Tensor] = list(torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)))
    output = RealignmentGuidance("aligned", 0.3, 2.0).forward(*tensors)
    cond, uncond = lerp(tensors[0], tensors[2], 0.3), lerp(tensors[1], tensors[3], 0.3)
    assert torch.equal(output["pred_cond"], cond)
    assert torch.equal(output["pred_uncond"], uncond)
    assert torch.equal(output["pred"], uncond + 2.0 * (cond - uncond))

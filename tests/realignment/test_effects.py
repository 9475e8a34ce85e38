"""What realigning does to numbers and objects beside the prediction: dtypes, gradients, the anchor given, observers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

import deradiff
from deradiff.realignment import observing

from .pipelines import known, subject, way_of
from .trace import difference, snapshot


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    it = subject(name)
    full, part = it.plain, it.specimen.components[0]
    it.pipe.to(dtype)
    it.anchors[part].to(dtype)
    given: dict[str, Any] = {
        k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in it.specimen.call(2).items()
    }
    plain = it.run(**given)
    with deradiff.realign(it.pipe, it.anchors, lam=[0.0, 0.5]) as handle:
        mixed = it.run(**given)
        assert mixed.dtype == dtype
        assert torch.equal(mixed[0], plain[0])
        handle.lam = 0.5
        assert torch.equal(it.run(**given)[1], mixed[1])
    assert torch.equal(it.run(**given), plain)
    assert full.isfinite().all()


def test_gradients_flow_to_the_input_and_to_both_models() -> None:
    it = subject("sd")
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    with deradiff.realign(it.pipe, it.anchors, lam=0.5):
        it.pipe.unet(x, 10, torch.randn(2, 7, 16)).sample.square().sum().backward()
    assert x.grad is not None
    network: Any
    for network in (it.pipe.unet, it.anchors["unet"]):
        assert network.conv_in.weight.grad is not None


def test_the_anchor_is_left_as_it_was() -> None:
    it = subject("sd")
    aligned: Any = it.anchors["unet"]
    aligned.train()
    aligned.mid_block.eval()
    aligned.conv_in.requires_grad_(False)
    it.pipe.components["vae"].aligned = aligned  # so that the snapshot sees it
    before = snapshot(it.pipe)
    for way in ("auto", "weights"):
        with deradiff.realign(it.pipe, aligned, lam=0.5, **way_of(way)):
            it.run()
        assert difference(before, snapshot(it.pipe)) == []


def test_a_scheduler_changed_under_way() -> None:
    it, other = subject("sd"), subject("sd")
    for pipe in (other.pipe, it.pipe):
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(it.pipe.scheduler.config)
    other.pipe.unet = other.anchors["unet"]
    with deradiff.realign(it.pipe, it.anchors, lam=1.0):
        assert torch.equal(it.run(), other.run())


def test_every_model_is_shown_to_an_observer() -> None:
    it, steps = known("sd"), []
    with deradiff.realign(it.pipe, it.anchors, lam=0.0) as handle:
        with observing(handle, steps.append):
            assert torch.equal(it.run(), it.plain)
        it.run()
    assert len(steps) == 2
    assert all(set(step.predictions) == {0, 1} and len(step.sample) == 4 for step in steps)

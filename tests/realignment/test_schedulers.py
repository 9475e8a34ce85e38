"""Every scheduler that Stable Diffusion takes: the laws at 0, 1, one half and 2."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.schedulers import KarrasDiffusionSchedulers

import deradiff

from .pipelines import by_hand, known, near, replaced, sample

UNUSABLE = {"DPMSolverSDEScheduler"}  # needs torchsde


@pytest.mark.parametrize("kind", sorted({kind.name for kind in KarrasDiffusionSchedulers} - UNUSABLE))
def test_laws_hold_under(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    it = known("sd")
    monkeypatch.setattr(it.pipe, "scheduler", getattr(diffusers, kind).from_config(it.pipe.scheduler.config))

    def run() -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):  # some draw noise from the global generator
            torch.manual_seed(0)
            return sample(it.specimen, it.pipe, num_inference_steps=4)

    plain = run()
    with replaced(it.pipe, it.anchors):
        aligned = run()
    for lam in (0.5, 2.0):
        with by_hand(it.pipe, it.anchors, lambda lam=lam: lam):
            expected = run()
        with deradiff.realign(it.pipe, it.anchors, lam=lam):
            assert near(run(), expected)
        assert not near(expected, plain)
    with deradiff.realign(it.pipe, it.anchors, lam=0.0) as handle:
        assert torch.equal(run(), plain)
        handle.lam = 1.0
        assert torch.equal(run(), aligned)
    assert torch.equal(run(), plain)

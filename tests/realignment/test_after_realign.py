"""What people do to a pipe while it is realigned is followed, or refused by name at the next call."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import deradiff
from deradiff.errors import RealignError

from . import loras
from .pipelines import subject
from .trace import difference, snapshot


@pytest.mark.parametrize("anchor", ["full", "mine"])
@pytest.mark.parametrize("policy", [None, deradiff.Weights()])
def test_another_precision_is_followed_and_the_users_network_stays(anchor: str, policy: Any) -> None:
    it = subject("sd")
    network: Any = it.anchors["unet"]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    if anchor == "mine":
        loras.add(it.pipe.unet, "mine")
    with deradiff.realign(it.pipe, network if anchor == "full" else "mine", lam=0.5, policy=policy) as handle:
        exact = it.run()
        it.pipe.to(dtype=torch.bfloat16)
        assert float((it.run().float() - exact).norm() / exact.norm()) < 0.1
        handle.lam = 0.0
        reference = it.run()
        it.pipe.to(dtype=torch.float32)
        handle.lam = 0.5
        it.run()
    it.pipe.to(dtype=torch.bfloat16)
    if anchor == "mine":
        it.pipe.unet.disable_lora()
    assert torch.equal(it.run(), reference)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("anchor", ["full", "mine"])
def test_fused_projections_are_refused_and_taken_again_once_unfused(anchor: str) -> None:
    it = subject("sd")
    if anchor == "mine":
        loras.add(it.pipe.unet, "mine")
    target: Any = it.anchors["unet"] if anchor == "full" else "mine"
    with deradiff.realign(it.pipe, target, lam=0.5):
        expected = it.run()
        it.pipe.fuse_qkv_projections()
        with pytest.raises(RealignError, match="unfuse_qkv_projections"):
            it.run()
        it.pipe.unfuse_qkv_projections()
        assert torch.equal(it.run(), expected)
    it.pipe.fuse_qkv_projections()
    with pytest.raises(RealignError, match="unfuse_qkv_projections"):
        deradiff.realign(it.pipe, target)


def test_layerwise_casting_is_refused_for_a_network_and_changes_nothing_of_it() -> None:
    it = subject("sd")
    network: Any = it.anchors["unet"]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    with deradiff.realign(it.pipe, network, lam=0.5):
        it.pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        with pytest.raises(RealignError, match="layerwise casting"):
            it.run()
    assert all(
        value.dtype == weights[name].dtype and torch.equal(value, weights[name])
        for name, value in network.state_dict().items()
    )


def test_a_lora_that_is_fused_later_is_refused() -> None:
    it = subject("sd")
    loras.add(it.pipe.unet, "mine")
    with deradiff.realign(it.pipe, "mine", lam=0.5):
        expected = it.run()
        it.pipe.unet.fuse_lora(adapter_names=["mine"])
        with pytest.raises(RealignError, match="unfuse_lora"):
            it.run()
        it.pipe.unet.unfuse_lora()
        assert torch.allclose(it.run(), expected, atol=1e-4)


@pytest.mark.parametrize("before", [True, False])
def test_a_cache_on_the_forward_of_a_block_is_refused_by_name(before: bool) -> None:
    it = subject("sd")
    block: Any = it.pipe.unet.mid_block
    kept: list[Any] = []

    def cached(*args: Any, **kwargs: Any) -> Any:
        if not kept:
            kept.append(type(block).forward(block, *args, **kwargs))
        return kept[0]

    if before:
        block.forward = cached
        with pytest.raises(RealignError, match=r"unet\.mid_block has been replaced"):
            deradiff.realign(it.pipe, it.anchors)
        del block.forward
    with deradiff.realign(it.pipe, it.anchors, lam=0.5):
        expected = it.run()
        block.forward = cached
        with pytest.raises(RealignError, match=r"unet\.mid_block has been replaced"):
            it.run()
        del block.forward
        assert torch.equal(it.run(), expected)


def test_a_realigned_pipe_is_neither_copied_nor_pickled() -> None:
    it = subject("sd")
    before = snapshot(it.pipe)
    with deradiff.realign(it.pipe, it.anchors):
        for attempt in (copy.deepcopy, pickle.dumps):
            for part in (it.pipe, it.pipe.unet):
                with pytest.raises(RealignError, match=r"can.t be copied.*handle.remove\(\)"):
                    attempt(part)
    assert difference(before, snapshot(it.pipe)) == []
    pickle.loads(pickle.dumps(it.pipe.unet))  # noqa: S301

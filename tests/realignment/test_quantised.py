"""Quantised networks: LoRAs, and full anchors that are quantised alike; everything else is an error, not an image."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deradiff
from deradiff.errors import AnchorError, RealignError

from . import loras
from .pipelines import known, near, replaced, subject
from .trace import difference, snapshot


class Packed(nn.Parameter):
    """A weight as quantisers keep it, in a class of its own, and rounded."""


class InLayers(Packed):
    """One of a quantiser that keeps scales in its layers."""


InLayers.__module__ = "bitsandbytes.nn.modules"


def quantised(network: nn.Module, kind: type[Packed] = Packed) -> nn.Module:
    """The network, its linear layers quantised in place."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = kind(layer.weight.data.half().float(), requires_grad=False)
    return network


def integers(network: nn.Module) -> nn.Module:
    """A copy whose output layer holds integers."""
    network = copy.deepcopy(network)
    layer: Any = network.get_submodule("conv_out")
    layer.weight = nn.Parameter(layer.weight.data.to(torch.int8), requires_grad=False)
    return network


def test_networks_that_are_quantised_alike_are_mixed() -> None:
    it = subject("sd")
    quantised(it.pipe.unet)
    aligned = {"unet": quantised(it.anchors["unet"])}
    plain = it.run()
    with replaced(it.pipe, aligned):
        expected = it.run()
    with deradiff.realign(it.pipe, aligned, lam=1.0) as handle:
        assert torch.equal(it.run(), expected)
        handle.lam = 0.5
        assert not near(it.run(), expected)
        handle.lam = 0.0
        assert torch.equal(it.run(), plain)
    assert torch.equal(it.run(), plain)


@pytest.mark.parametrize("which", ["reference", "anchor", "integers"])
def test_models_that_are_not_quantised_alike_are_not_mixed(which: str) -> None:
    it = subject("sd")
    aligned = it.anchors["unet"]
    if which == "integers":
        aligned = integers(aligned)
    else:
        quantised(it.pipe.unet if which == "reference" else aligned)
    before = snapshot(it.pipe)
    with pytest.raises(AnchorError, match="quantise both models alike, or give the anchor as a LoRA"):
        deradiff.realign(it.pipe, aligned)
    assert difference(before, snapshot(it.pipe)) == []


def test_weights_with_scales_in_their_layers_are_not_swapped() -> None:
    it = subject("sd")
    quantised(it.pipe.unet, InLayers)
    with pytest.raises(AnchorError, match="bitsandbytes, which keeps scales of the weights in its layers"):
        deradiff.realign(it.pipe, quantised(it.anchors["unet"], InLayers))


def test_a_checkpoint_is_not_loaded_beside_a_quantised_network(tmp_path: Path) -> None:
    known("sd").pipe.unet.save_pretrained(tmp_path)
    it = subject("sd")
    quantised(it.pipe.unet)
    with pytest.raises(AnchorError, match=r"unet is quantised .*load it quantised alike and give the network"):
        deradiff.realign(it.pipe, tmp_path)


def test_weights_that_are_quantised_are_not_interpolated() -> None:
    it = subject("sd")
    quantised(it.pipe.unet)
    with pytest.raises(AnchorError, match=r"policy=Weights\(\) can't interpolate quantised weights"):
        deradiff.realign(it.pipe, quantised(it.anchors["unet"]), policy=deradiff.Weights())


def test_a_lora_runs_on_a_quantised_network_and_is_not_merged_into_it() -> None:
    it = subject("sd")
    quantised(it.pipe.unet)
    loras.add(it.pipe.unet, "own")
    expected = it.run()
    with pytest.raises(AnchorError, match="can't be merged into quantised weights"):
        deradiff.realign(it.pipe, "own", ensemble="separate")
    for policy in (None, deradiff.Weights()):
        with deradiff.realign(it.pipe, "own", lam=1.0, policy=policy) as handle:
            assert near(it.run(), expected)
            handle.lam = 0.0
            assert not near(it.run(), expected)


def test_under_layerwise_casting_only_loras_that_were_loaded_before_run(tmp_path: Path) -> None:
    it = subject("sd")
    saved = loras.save(it.pipe, "unet", tmp_path)
    loras.add(it.pipe.unet, "own")
    it.pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    expected = it.run()
    with pytest.raises(AnchorError, match=r"load it first with pipe.load_lora_weights"):
        deradiff.realign(it.pipe, saved)
    with pytest.raises(RealignError, match="layerwise casting would cast the anchor's own weights"):
        deradiff.realign(it.pipe, it.anchors)
    with deradiff.realign(it.pipe, "own", lam=1.0) as handle:
        assert near(it.run(), expected)
        handle.lam = 0.0
        assert not near(it.run(), expected)

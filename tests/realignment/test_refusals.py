"""What can't be realigned, and networks that don't fit: a clear error, and nothing stays."""

from __future__ import annotations

from typing import Any

import accelerate
import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import PyramidAttentionBroadcastConfig, apply_group_offloading, apply_pyramid_attention_broadcast
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

import deradiff
from deradiff.errors import AnchorError, RealignError

from . import loras
from .pipelines import anchor, known, subject
from .trace import difference, snapshot


def test_a_pipeline_is_realigned_once() -> None:
    it = known("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=1.0):
        aligned = it.run()
        with pytest.raises(RealignError, match="already"):
            deradiff.realign(it.pipe, it.anchors)
        assert torch.equal(it.run(), aligned)
    with deradiff.realign(it.pipe, it.anchors, lam=1.0) as handle:
        handle.remove()
        handle.remove()
        assert torch.equal(it.run(), it.plain)


def another_dtype(it: Any) -> object:
    return anchor(it.pipe.unet).half()


def one_weight_of_another_dtype(it: Any) -> object:
    aligned: Any = anchor(it.pipe.unet)
    aligned.conv_out.half()
    return aligned


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda it: it.pipe.unet, "own unet"),
        (lambda it: {"unet": it.pipe.unet}, "own unet"),
        (another_dtype, "float16"),
        (one_weight_of_another_dtype, "conv_out"),
        (lambda it: it.pipe.vae, "AutoencoderKL"),
        (lambda it: nn.Linear(2, 2), "Linear"),
        (lambda it: known("sd_inpaint").anchors["unet"], "in_channels"),
    ],
)
def test_networks_that_do_not_fit(given: Any, words: str) -> None:
    it = known("sd")
    before = snapshot(it.pipe)
    with pytest.raises(AnchorError, match=words):
        deradiff.realign(it.pipe, given(it))
    assert difference(before, snapshot(it.pipe)) == []


def test_not_a_pipeline_or_not_a_part_of_it() -> None:
    it = known("sd")
    with pytest.raises(RealignError, match="UNet2DConditionModel"):
        deradiff.realign(it.pipe.unet, it.anchors["unet"])
    with pytest.raises(RealignError, match="transformer"):
        deradiff.realign(it.pipe, it.anchors["unet"], component="transformer")
    with pytest.raises(AnchorError, match="needs a LoRA"):
        deradiff.realign(it.pipe, it.anchors, ensemble="batched")
    assert torch.equal(it.run(), it.plain)


def test_a_fused_lora() -> None:
    it = subject("sd_with_style_lora")
    it.pipe.fuse_lora()
    with pytest.raises(RealignError, match="fused"):
        deradiff.realign(it.pipe, it.anchors)


def test_a_step_cache_before_and_after() -> None:
    it = subject("flux")
    with deradiff.realign(it.pipe, it.anchors):
        it.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        with pytest.raises(RealignError, match="cache"):
            it.run()
    with pytest.raises(RealignError, match="cache"):
        deradiff.realign(it.pipe, it.anchors)
    it.pipe.transformer.disable_cache()
    with deradiff.realign(it.pipe, it.anchors, lam=0.0):
        assert torch.equal(it.run(), it.plain)
    unet = subject("sd")
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, spatial_attention_block_identifiers=("down_blocks",),
        current_timestep_callback=lambda: 500,
    )  # fmt: skip
    apply_pyramid_attention_broadcast(unet.pipe.unet, config)
    with pytest.raises(RealignError, match="cache"):
        deradiff.realign(unet.pipe, unet.anchors)


class Storing(AttnProcessor):
    attention_store: Any = None


def test_attention_that_is_stored() -> None:
    it = subject("sd")
    it.pipe.unet.set_attn_processor(Storing())
    with deradiff.realign(it.pipe, it.anchors) as handle:
        with pytest.raises(RealignError, match="Storing"):
            it.run()
        handle.lam = 0.0
        assert torch.allclose(it.run(), it.plain, atol=1e-4)


@pytest.mark.parametrize("offload", ["sequential", "group"])
def test_weights_that_are_streamed(offload: str) -> None:
    it = subject("sd")
    if offload == "sequential":
        accelerate.cpu_offload(it.pipe.unet, execution_device=torch.device("cpu"))
    else:
        apply_group_offloading(
            it.pipe.unet,
            onload_device=torch.device("cpu"),
            offload_device=torch.device("cpu"),
            offload_type="leaf_level",
        )
    loras.add(it.pipe.unet, "own") if offload == "group" else None
    with pytest.raises((RealignError, AnchorError), match="offload"), deradiff.realign(it.pipe, it.anchors):
        it.run()
    if offload == "group":
        with deradiff.realign(it.pipe, "own", lam=0.0):
            assert torch.equal(it.run(), it.plain)


def test_a_denoiser_that_was_replaced() -> None:
    it = subject("sd")
    with deradiff.realign(it.pipe, it.anchors) as handle:
        it.pipe.unet = it.anchors["unet"]
        with pytest.raises(RealignError, match="replaced"):
            it.run()
        handle.remove()
        it.run()


def test_a_removed_handle_says_so() -> None:
    it = known("sd")
    handle = deradiff.realign(it.pipe, it.anchors)
    handle.remove()
    handle.remove()
    with pytest.raises(RealignError, match="removed"):
        handle.lam = 0.3
    with pytest.raises(RealignError, match="removed"), handle:
        pass


def test_an_unknown_mode_is_refused() -> None:
    it = known("sd")
    with pytest.raises(RealignError, match="expected one of auto"):
        deradiff.realign(it.pipe, it.anchors, ensemble="both")  # pyright: ignore[reportArgumentType]


def test_a_second_handle_on_another_denoiser_of_the_pipe_is_refused() -> None:
    it = known("wan_2_2")
    first = deradiff.realign(it.pipe, it.anchors["transformer"], component="transformer")
    with first, pytest.raises(RealignError, match="together"):
        deradiff.realign(it.pipe, it.anchors["transformer_2"], component="transformer_2")
    assert torch.equal(it.run(), it.plain)

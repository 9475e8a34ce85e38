"""LoRAs and pipelines that align text encoders too: the reference's encode prompts, or the anchor's at every lam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

import deradiff
from deradiff.errors import AnchorError, RealignError

from .pipelines import subject
from .trace import difference, snapshot


def save_lora(folder: Path) -> Path:
    """A LoRA of UNet and text encoder, as training scripts save it."""
    pipe: Any = subject("sd").pipe
    torch.manual_seed(2)
    for module, targets in ((pipe.unet, ["to_q", "to_v"]), (pipe.text_encoder, ["q_proj", "v_proj"])):
        module.add_adapter(LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    layers = [convert_state_dict_to_diffusers(get_peft_model_state_dict(m)) for m in (pipe.unet, pipe.text_encoder)]
    pipe.save_lora_weights(folder, unet_lora_layers=layers[0], text_encoder_lora_layers=layers[1])
    return folder


@pytest.mark.parametrize("loaded", [True, False])
def test_lam_0_is_the_reference_and_the_anchors_encoder_is_taken_where_asked(
    loaded: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    it, plain = subject("sd"), subject("sd")
    clean, folder = it.run(), save_lora(tmp_path)
    plain.pipe.load_lora_weights(folder, adapter_name="dpo")
    whole = plain.run()
    plain.pipe.text_encoder.disable_adapters()
    of_unet = plain.run()
    if loaded:
        it.pipe.load_lora_weights(folder, adapter_name="dpo")
    before = snapshot(it.pipe)
    anchor: Any = "dpo" if loaded else folder
    with deradiff.realign(it.pipe, anchor, lam=0.0) as handle:
        assert "text_encoder" in caplog.text
        assert torch.equal(it.run(), clean)
        handle.lam = 1.0
        assert torch.allclose(it.run(), of_unet, atol=1e-5)
    assert difference(before, snapshot(it.pipe)) == []
    with deradiff.realign(it.pipe, anchor, lam=1.0, text_encoder="anchor") as handle:
        assert torch.allclose(it.run(), whole, atol=1e-5)
        handle.lam = 0.0
        assert not torch.equal(it.run(), clean)  # its prompts are the anchor's, at every lam
    assert difference(before, snapshot(it.pipe)) == []


def test_a_pipeline_brings_its_text_encoder_where_asked(tmp_path: Path) -> None:
    it, other = subject("sd"), subject("sd").pipe
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in [*other.unet.parameters(), *other.text_encoder.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
    other.save_pretrained(tmp_path)
    whole = StableDiffusionPipeline(**{**it.pipe.components, "unet": other.unet, "text_encoder": other.text_encoder})
    before, clean = snapshot(it.pipe), it.run()
    own = it.pipe.text_encoder, it.pipe.unet
    it.pipe.text_encoder, it.pipe.unet = other.text_encoder, other.unet
    expected = it.run()
    it.pipe.text_encoder, it.pipe.unet = own
    for anchor in (whole, tmp_path):
        with deradiff.realign(it.pipe, anchor, lam=1.0, text_encoder="anchor"):
            assert torch.allclose(it.run(), expected, atol=1e-5)
        with deradiff.realign(it.pipe, anchor, lam=0.0):
            assert torch.equal(it.run(), clean)
    assert difference(before, snapshot(it.pipe)) == []


def test_what_has_no_text_encoder_is_refused() -> None:
    it = subject("sd")
    before = snapshot(it.pipe)
    with pytest.raises(AnchorError, match="no text encoder"):
        deradiff.realign(it.pipe, it.anchors["unet"], text_encoder="anchor")
    with pytest.raises(RealignError, match="'reference' or 'anchor'"):
        deradiff.realign(it.pipe, it.anchors["unet"], text_encoder="mine")  # pyright: ignore[reportArgumentType]
    assert difference(before, snapshot(it.pipe)) == []

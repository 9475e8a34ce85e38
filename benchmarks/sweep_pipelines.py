"""The pipelines that the sweep benchmark runs on: the embedded one, and ones of Stable Diffusion's shapes.

The latter have random weights and a LoRA of random weights: they show what calls cost in time and memory, and their
images mean nothing.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from deradiff import testbed
from deradiff.cli.common import hush
from deradiff.testbed.architecture import make_sampler, make_tokenizer, make_vae

Shape = Literal["embedded", "sd15", "sdxl"]
RANK, TOKENS = 8, 77
_SDXL: dict[str, Any] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    "use_linear_projection": True,
}


def build(shape: Shape, *, device: str, divisor: int = 1) -> Any:
    """A pipeline on a device, in float16 on an accelerator.

    Args:
        shape: ``embedded``; ``sd15`` or ``sdxl`` have the layers of Stable Diffusion 1.5 or XL and random weights.
        device: where it runs.
        divisor: divides the channels of those layers; 1 is full size.
    """
    hush()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = {"embedded": lambda _: testbed.load_pipeline(), "sd15": _sd15, "sdxl": _sdxl}[shape](divisor)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device, torch.float32 if device == "cpu" else torch.float16)


def write_anchor(pipe: Any, folder: Path) -> Path:
    """A LoRA of rank 8 on the attention of a pipeline's denoiser, which changes what it predicts by some percent."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    generator = torch.Generator().manual_seed(1)
    pipe.unet.add_adapter(config, "random")
    weights = get_peft_model_state_dict(pipe.unet, adapter_name="random")
    layers = {
        name: torch.randn(weight.shape, generator=generator) / (weight.shape[1] if "lora_A" in name else RANK) ** 0.5
        for name, weight in weights.items()
    }
    pipe.unet.delete_adapters("random")
    pipe.save_lora_weights(folder, layers, unet_lora_adapter_metadata=config.to_dict())
    return folder


def _sd15(divisor: int) -> StableDiffusionPipeline:
    channels = tuple(width // divisor for width in (320, 640, 1280, 1280))
    absent: Any = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(
        unet=UNet2DConditionModel(block_out_channels=channels, cross_attention_dim=768),
        text_encoder=CLIPTextModel(_text(768, layers=12)),
        tokenizer=_tokenizer(),
        **_shared(),
        **absent,
    )


def _sdxl(divisor: int) -> StableDiffusionXLPipeline:
    channels = tuple(width // divisor for width in (320, 640, 1280))
    return StableDiffusionXLPipeline(
        unet=UNet2DConditionModel(block_out_channels=channels, **_SDXL),
        text_encoder=CLIPTextModel(_text(768, layers=12)),
        text_encoder_2=CLIPTextModelWithProjection(_text(1280, layers=32)),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        add_watermarker=False,
        **_shared(),
    )


def _shared() -> dict[str, Any]:
    """The embedded pipeline's scheduler and VAE: latents aren't decoded, but their size is read off a VAE."""
    return {"scheduler": make_sampler(), "vae": make_vae()}


def _tokenizer() -> CLIPTokenizer:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = TOKENS
    return tokenizer


def _text(width: int, layers: int) -> CLIPTextConfig:
    """Of a text encoder for the embedded pipeline's words."""
    vocabulary = make_tokenizer().get_vocab()
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=TOKENS,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )

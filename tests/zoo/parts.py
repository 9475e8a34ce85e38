"""Parts that families share: tiny autoencoders, UNets, text encoders, and how a pipeline is put together."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .inputs import TOKENS, WIDTH

TRANSFORMER = ("transformer",)
SMALL: dict[str, Any] = {"attention_head_dim": 8, "num_attention_heads": 2}
Module = TypeVar("Module", bound=nn.Module)
Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)


@contextmanager
def seed_everything(seed: int = 0) -> Iterator[None]:
    """Seeds torch for the block, and leaves its global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def seeded(factory: Callable[..., Module], *args: Any, seed: int = 0, **config: Any) -> Module:
    """Builds a network with weights that depend on the seed alone, none of its matrices left at zero."""
    with seed_everything(seed), torch.no_grad():
        module = factory(*args, **config)
        for parameter in module.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.1)
    return module.eval()


def make(pipeline: Callable[..., Pipeline], **components: Any) -> Pipeline:
    """A pipeline without its progress bar."""
    pipe = pipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def absent(*names: str) -> dict[str, None]:
    """Components left out, since their outputs are given."""
    return dict.fromkeys(names)


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer of single letters, and of the word "red" to have merges."""
    letters = string.ascii_lowercase + string.digits + ",."
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>"]
    vocab = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    merges: Any = [("r", "e"), ("re", "d</w>")]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS + 9)


def clip_text(width: int = WIDTH, *, projection: bool = False) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A CLIP text encoder of one layer more than the pipelines that read the last but one need."""
    tok: Any = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tok),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS + 9,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    return seeded(CLIPTextModelWithProjection if projection else CLIPTextModel, config)


def vae(latent_channels: int = 4, blocks: int = 3, **config: Any) -> AutoencoderKL:
    """An autoencoder that shrinks each side by ``2 ** (blocks - 1)``."""
    return seeded(
        AutoencoderKL,
        block_out_channels=(4,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latent_channels,
        norm_num_groups=2,
        sample_size=32,
        **config,
    )


def steady(autoencoder: Any) -> Any:
    """Makes it encode to the mean, for pipelines that draw the latents of an image without a generator."""
    encode = autoencoder.encode

    def encode_mean(image: Tensor) -> Any:
        output = encode(image)
        output.latent_dist.sample = output.latent_dist.mode
        return output

    autoencoder.encode = encode_mean
    return autoencoder


def unet(**config: Any) -> UNet2DConditionModel:
    """A conditional UNet on 8x8 latents, of two levels."""
    tiny: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    return seeded(UNet2DConditionModel, **(tiny | config))


def ddim(**config: Any) -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **config,
    )


def assemble(pipeline: Callable[..., Pipeline], transformer: nn.Module, **components: Any) -> Pipeline:
    """A pipeline of a transformer and its flow, without a text encoder, since embeddings are given."""
    usual = {"vae": vae(shift_factor=0.0), "scheduler": FlowMatchEulerDiscreteScheduler()}
    usual |= absent("text_encoder", "tokenizer")
    return make(pipeline, transformer=transformer, **(usual | components))

"""The shapes of the testbed's networks: Stable Diffusion's parts, small enough to train and to run on one core.

Latents are 8 x 8; the denoiser predicts eps under Stable Diffusion's schedule (scaled linear, 1000 steps).
"""

from itertools import pairwise
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from deradiff.testbed.captions import RELATIONS
from deradiff.testbed.scenes import COLOURS, RADII, SHAPES, SIDE

TOKENS = 16
LATENT_CHANNELS = 8
_TEXT_WIDTH = 96
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer in which every word of our captions is one token; other words are spelt by letter."""
    relations = {part for relation in RELATIONS for part in relation.split()}
    words = ["a", "an", "on", "background", *sorted(relations), *RADII, *COLOURS, *SHAPES]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,-'!?")
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = _merge([*word[:-1], word[-1] + "</w>"], merges)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            pieces.append(parts[0])
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)  # pyright: ignore[reportArgumentType]


def _merge(parts: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding: join neighbours by the merges, earlier merges first."""
    for pair in merges:
        while pair in (neighbours := list(pairwise(parts))):
            at = neighbours.index(pair)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two causal transformer layers."""
    vocabulary = tokenizer.get_vocab()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_TEXT_WIDTH,
        projection_dim=_TEXT_WIDTH,
        intermediate_size=2 * _TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    return CLIPTextModel(config)


def make_vae() -> AutoencoderKL:
    """Pixels ``[N, 3, 64, 64]`` to latents ``[N, 8, 8, 8]`` and back."""
    channels = (8, 16, 32, 64)
    return AutoencoderKL(
        sample_size=SIDE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=channels,  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * len(channels),  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * len(channels),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def make_unet() -> UNet2DConditionModel:
    """The denoiser: convolutions at 8 x 8 and 4 x 4, attention to the caption at 4 x 4."""
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=_TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_noise() -> DDPMScheduler:
    """The forward process that the denoiser is trained on."""
    return DDPMScheduler(**SCHEDULE, clip_sample=False)


def make_sampler() -> EulerAncestralDiscreteScheduler:
    """The scheduler that is shipped; its config also says what other schedulers made from it must know of latents."""
    config = {**SCHEDULE, "clip_sample": False, "set_alpha_to_one": False}
    return EulerAncestralDiscreteScheduler.from_config(config)  # pyright: ignore[reportReturnType]

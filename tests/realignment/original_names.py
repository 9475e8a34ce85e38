"""A UNet's weights under the names of the original Stable Diffusion, as single-file checkpoints have them."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(\w+?)\.(\d+)\.(.*)")


def original_weights(unet: Any) -> dict[str, Tensor]:
    return {
        f"model.diffusion_model.{_original(name, unet.config)}": value.clone()
        for name, value in unet.state_dict().items()
    }


def _original(name: str, config: Any) -> str:
    for ours, theirs in _OUTER.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if middle := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        inside = middle[1] == "resnets"
        return f"middle_block.{2 * int(middle[2])}.{_resnet(middle[3])}" if inside else f"middle_block.1.{middle[3]}"
    block = _BLOCK.match(name)
    assert block, name
    index, part, layer, rest = int(block[2]), block[3], int(block[4]), block[5]
    a_block = config.layers_per_block + 1
    if part == "downsamplers":
        return f"input_blocks.{(index + 1) * a_block}.0.op.{rest.removeprefix('conv.')}"
    if part == "upsamplers":
        place = 2 if "Attn" in config.up_block_types[index] else 1
        return f"output_blocks.{index * a_block + config.layers_per_block}.{place}.{rest}"
    side, first = ("input_blocks", 1) if block[1] == "down_blocks" else ("output_blocks", 0)
    number = index * a_block + layer + first
    return f"{side}.{number}.0.{_resnet(rest)}" if part == "resnets" else f"{side}.{number}.1.{rest}"


def _resnet(rest: str) -> str:
    head, tail = rest.split(".", 1)
    return f"{_RESNET[head]}.{tail}"


def original_pipeline(pipe: Any) -> dict[str, Tensor]:
    """All weights of a Stable Diffusion 1 pipeline, as A1111 and ComfyUI keep them in one file."""
    text = {
        f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": value.clone()
        for name, value in pipe.text_encoder.state_dict().items()
    }
    return {**original_weights(pipe.unet), **_original_vae(pipe.vae), **text}


_VAE = (
    (r"\.mid_block\.resnets\.(\d)", lambda match: f".mid.block_{int(match[1]) + 1}"),
    (r"\.mid_block\.attentions\.0", lambda _: ".mid.attn_1"),
    (r"\.down_blocks\.(\d)\.resnets", lambda match: f".down.{match[1]}.block"),
    (r"\.down_blocks\.(\d)\.downsamplers\.0", lambda match: f".down.{match[1]}.downsample"),
    (r"conv_norm_out", lambda _: "norm_out"),
    (r"conv_shortcut", lambda _: "nin_shortcut"),
    (r"group_norm", lambda _: "norm"),
    (r"to_out\.0", lambda _: "proj_out"),
    (r"to_([qkv])", lambda match: match[1]),
)


def _original_vae(vae: Any) -> dict[str, Tensor]:
    last = len(vae.config.up_block_types) - 1
    weights = {}
    for name, value in vae.state_dict().items():
        theirs = re.sub(
            r"\.up_blocks\.(\d)\.(resnets|upsamplers\.0)",
            lambda match: f".up.{last - int(match[1])}.{'block' if match[2] == 'resnets' else 'upsample'}",
            name,
        )
        for pattern, replacement in _VAE:
            theirs = re.sub(pattern, replacement, theirs)
        a_convolution = ".mid.attn_1." in theirs and value.ndim == 2
        weights[f"first_stage_model.{theirs}"] = value[:, :, None, None].clone() if a_convolution else value.clone()
    return weights

"""ComfyUI's own code takes our LoRAs in kohya's layout completely: every layer, at its whole strength.

It runs comfy.lora on models without weights, so no server is started: COMFYUI_PYTHON needs what comfy.lora imports.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file
from tests.align.trainings import preferences, settings
from tests.integrations.real.conftest import Checkout
from tests.realignment import loras
from tests.zoo import ZOO, anchor_of, parts
from tests.zoo.inputs import WIDTH
from tests.zoo.mmdits import sd3_transformer
from torch import nn

from deradiff.align import align
from deradiff.bake import bake_weights, write_lora
from deradiff.compat import KOHYA_PREFIXES, kohya_prefix

SCRIPT = Path(__file__).with_name("patch_models.py")
WIDE: dict[str, Any] = {"block_out_channels": (32, 64), "norm_num_groups": 32}  # ComfyUI's groups are of 32


class Family(NamedTuple):
    """A tiny pipeline, and the same network as ComfyUI describes it.

    Attributes:
        model: a class of comfy.supported_models.
        config: its unet_config.
        component: the denoiser's name in the pipeline.
        build: makes the pipeline.
    """

    model: str
    config: dict[str, Any]
    component: str
    build: Callable[[], Any]


def pipeline(name: str, component: str, denoiser: nn.Module | None = None) -> Any:
    pipe: Any = ZOO[name].build()
    if denoiser is not None:
        pipe.register_modules(**{component: denoiser})
    return pipe


def build_sd() -> Any:
    return pipeline("sd", "unet", parts.unet(**WIDE))


def build_sdxl() -> Any:
    unet = parts.unet(
        **WIDE,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=40,
        use_linear_projection=True,
    )
    return pipeline("sdxl", "unet", unet)


def build_sd3() -> Any:
    # heads of 64 in ComfyUI too, where there are as many heads as layers
    return pipeline("sd3", "transformer", sd3_transformer(head=64))


UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "context_dim": WIDTH,
    "use_spatial_transformer": True,
    "legacy": False,
}
SD = UNET | {
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
}
SDXL = UNET | {
    "context_dim": 2 * WIDTH,
    "transformer_depth": [0, 2],
    "transformer_depth_output": [0, 0, 2, 2],
    "transformer_depth_middle": 2,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 40,
}
SD3 = {
    "input_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 1,
    "depth": 2,
    "adm_in_channels": WIDTH,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128}},
    "num_patches": 64,
    "pos_embed_max_size": 8,
    "qk_norm": "rms",
    "x_block_self_attn_layers": [0],
}
FLUX = {
    "in_channels": 4,
    "out_channels": 4,
    "vec_in_dim": WIDTH,
    "context_in_dim": WIDTH,
    "hidden_size": 32,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [4, 4, 8],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
}
FAMILIES = {
    "sd": Family("SD15", SD, "unet", build_sd),
    "sdxl": Family("SDXL", SDXL, "unet", build_sdxl),
    "sd3": Family("SD3", SD3, "transformer", build_sd3),
    "flux": Family("Flux", FLUX, "transformer", lambda: pipeline("flux", "transformer")),
}


def bake_of_all_layers(family: Family, folder: Path) -> Path:
    """Of a LoRA on every linear layer and convolution."""
    pipe = family.build()
    denoiser = pipe.components[family.component]
    layers = [name for name, module in denoiser.named_modules() if type(module) in (nn.Linear, nn.Conv2d)]
    anchor = loras.save(pipe, family.component, folder / "anchor", layers)
    update = bake_weights(pipe, str(anchor), 0.6)
    assert set(update.layers) == set(layers)
    return write_lora(pipe, update, folder / "baked", "kohya", card={"lam": 0.6})


def lora_of_a_checkpoint(family: Family, folder: Path) -> Path:
    """As extract-lora makes it."""
    pipe = family.build()
    update = bake_weights(pipe, anchor_of(pipe.components[family.component]), 1.0, rank=3)
    return write_lora(pipe, update, folder / "extracted", "kohya", card={})


def trained_anchor(family: Family, folder: Path) -> Path:
    """As align writes it."""
    targets = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "ff.net.2")
    align(
        family.build(), preferences(folder / "pairs"), folder / "trained", settings(steps=2, target_modules=targets),
        card={}, format="kohya",
    )  # fmt: skip
    return folder / "trained" / "trained.safetensors"


LORAS: list[tuple[str, Callable[[Family, Path], Path]]] = [
    *((name, bake_of_all_layers) for name in FAMILIES),
    *((name, lora_of_a_checkpoint) for name in FAMILIES),
    *((name, trained_anchor) for name in ("sd", "sdxl")),
]


def norms_in(file: Path) -> dict[str, float]:
    """``||dW||`` of each layer in a file of kohya's layout."""
    state = load_file(file)
    names = [name.removesuffix(".alpha") for name in state if name.endswith(".alpha")]
    assert len(state) == 3 * len(names)
    factors = {name: [state[f"{name}.lora_{part}.weight"].flatten(1) for part in ("up", "down")] for name in names}
    return {
        name: float(state[f"{name}.alpha"] / len(down) * (up @ down).norm()) for name, (up, down) in factors.items()
    }


def test_comfyui_takes_every_layer_of_every_lora(checkout: Checkout, tmp_path: Path) -> None:
    jobs, files = [], []
    for number, (name, write) in enumerate(LORAS):
        files.append(write(FAMILIES[name], tmp_path / str(number)))
        jobs.append({"model": FAMILIES[name].model, "config": FAMILIES[name].config, "lora": str(files[-1])})
    command = [checkout.python, SCRIPT]
    done = subprocess.run(
        command, cwd=checkout.folder, input=json.dumps(jobs), stdout=subprocess.PIPE, check=True, text=True
    )
    for (name, write), file, result in zip(LORAS, files, json.loads(done.stdout), strict=True):
        expected = norms_in(file)
        print(f"{name}, {write.__name__}: {len(result['norms'])} of {len(expected)} layers")
        assert result["messages"] == []
        assert result["norms"] == pytest.approx(expected, rel=1e-4)


def test_every_denoiser_with_a_prefix_is_tried() -> None:
    tried = {type(family.build().components[family.component]) for family in FAMILIES.values()}
    assert {kind.__name__ for kind in tried} == set(KOHYA_PREFIXES)
    assert all(kohya_prefix(family.build().components[family.component]) for family in FAMILIES.values())

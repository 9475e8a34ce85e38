"""Writes tiny random models for the real test; run by ComfyUI's own Python, in its checkout.

Usage: python tiny_models.py MODELS_FOLDER

Two checkpoints with Stable Diffusion 1.5's layout (a UNet of 32 M parameters with a TAESD, no text encoder) and one
LoRA under kohya's and under PEFT's names.
"""

# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

sys.path.insert(0, ".")
import comfy.cli_args

comfy.cli_args.args.cpu = True  # what the other modules of comfy ask when they are imported

import comfy.ops  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.taesd.taesd import TAESD  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "legacy": False,
}
RANK, ALPHA = 4, 2.0
LAYERS = (".to_q", ".to_v", ".to_out.0", ".proj_in", ".conv1", ".ff.net.0.proj")


def fill(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    weights = {}
    for name, weight in model.state_dict().items():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 0:
            weights[name] = weight  # the scales of TAESD
        elif weight.ndim > 1:
            weights[name] = noise / weight[0].numel() ** 0.5
        else:
            weights[name] = 0.05 * noise + (name.endswith(".weight"))
    return weights


def main(folder: Path) -> None:
    for name in ("checkpoints", "loras"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    unet = fill(UNetModel(**UNET, operations=comfy.ops.disable_weight_init), generator)
    vae = fill(TAESD(), generator)
    last = max(k for k in vae if k.startswith("taesd_decoder.") and k.endswith(".weight") and len(vae[k]) == 3)
    vae[last] *= 0.2  # images with other shades than black and full colours
    vae[last.removesuffix("weight") + "bias"] += 0.5
    rest = {f"first_stage_model.{name}": weight for name, weight in vae.items()}
    other = {k: w + 0.2 * torch.randn(w.shape, generator=generator) * w.std(correction=0) for k, w in unet.items()}
    for name, weights in (("reference", unet), ("aligned", other)):
        whole = {f"model.diffusion_model.{key}": weight for key, weight in weights.items()} | rest
        save_file(whole, folder / "checkpoints" / f"{name}.safetensors")

    peft, kohya = {}, {}
    for theirs, ours in sorted(comfy.utils.unet_to_diffusers(UNET).items()):
        layer = theirs.removesuffix(".weight")
        if not theirs.endswith(".weight") or not layer.endswith(LAYERS) or ours not in unet:
            continue
        weight = unet[ours]
        down = torch.randn(RANK, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
        up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=generator)
        peft |= {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up}
        flat = "lora_unet_" + layer.replace(".", "_")
        kohya |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": torch.tensor(ALPHA)}
    settings = json.dumps({"unet.r": RANK, "unet.lora_alpha": ALPHA})
    save_file(kohya, folder / "loras" / "alignment.safetensors")
    save_file(peft, folder / "loras" / "alignment_peft.safetensors", metadata={"lora_adapter_metadata": settings})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

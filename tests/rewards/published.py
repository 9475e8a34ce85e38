"""Tiny models of random weights in the layouts of the published ones: file names, key names, configs."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tests.rewards import blip_reference, open_clip_reference
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from deradiff import testbed
from deradiff.rewards import load_reward
from deradiff.rewards.scorer import Dtype, Scorer

CLIP_TOKENS, LENGTH = 172, 16  # of the testbed's tokenizer
SIZE = 28
PREPROCESSOR = {  # with sizes spelt as in openai/clip-vit-large-patch14, and as in laion's
    "clip": {"size": SIZE, "crop_size": SIZE},
    "pickscore": {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}},
}


def tokenizer(folder: Path) -> None:
    text = (testbed.pipeline_path() / "tokenizer" / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text)


def clip(folder: Path, preprocessor: str = "clip") -> None:
    """transformers' layout, with what old configs and checkpoints carry besides."""
    tower = {"intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "quick_gelu"}
    text = {"hidden_size": 64, "vocab_size": CLIP_TOKENS, "max_position_embeddings": LENGTH}
    text |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": tower | text | {"num_beams": 1, "torchscript": False},
        "text_config_dict": tower | text,
        "torch_dtype": "float32",
        "transformers_version": None,
        "vision_config": tower | {"hidden_size": 48, "image_size": SIZE, "patch_size": 7},
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = CLIPModel(CLIPConfig.from_dict(config))
    state = {name: spread(name, value) for name, value in model.state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    save_file(state, folder / "model.safetensors")
    given = {"do_resize": True, "do_center_crop": True, "do_normalize": True, "resample": 3}
    given |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps(given | PREPROCESSOR[preprocessor]))
    tokenizer(folder)


def spread(name: str, value: Tensor) -> Tensor:
    """Weights large enough for every part to matter."""
    if name == "logit_scale":
        return torch.tensor(4.6052)
    noise = torch.randn(value.shape) * (0.2 if value.ndim > 1 else 0.1)
    return 1 + noise if "norm" in name.lower() and name.endswith("weight") else noise


def pickscore(folder: Path) -> None:
    clip(folder, "pickscore")


def hps(folder: Path) -> None:
    torch.manual_seed(2)
    model = open_clip_reference.Clip(CLIP_TOKENS, LENGTH)
    model.load_state_dict({name: spread(name, value) for name, value in model.state_dict().items()})
    torch.save({"epoch": 1, "name": "hps", "state_dict": model.state_dict()}, folder / "HPS_v2.1_compressed.pt")
    tokenizer(folder)


def head(width: int, prefix: str) -> dict[str, Tensor]:
    """Layers of the published head, at their indices among dropouts, with small inner sizes."""
    torch.manual_seed(3)
    sizes, places = (width, 32, 16, 8, 4, 1), (0, 2, 4, 6, 7)
    state = {}
    for place, before, after in zip(places, sizes, sizes[1:], strict=False):
        state[f"{prefix}{place}.weight"] = torch.randn(after, before) * before**-0.5
        state[f"{prefix}{place}.bias"] = torch.randn(after)
    return state


def image_reward(folder: Path) -> None:
    torch.manual_seed(4)
    state = {name: spread(name, torch.empty(shape)) for name, shape in blip_reference.shapes().items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(state | head(blip_reference.TEXT, "mlp.layers."), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(blip_reference.MED))
    blip_reference.tokenizer().save(str(folder / "tokenizer.json"))


def aesthetic(folder: Path) -> None:
    clip(folder)
    torch.save(head(24, "layers."), folder / "sac+logos+ava1-l14-linearMSE.pth")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "clip": clip,
    "pickscore": pickscore,
    "hps": hps,
    "image_reward": image_reward,
    "aesthetic": aesthetic,
}
NAMES = list(BUILDERS)


def loaded(name: str, folder: Path, dtype: Dtype = "float32") -> Scorer:
    scorer = load_reward(f"{name}={folder}", dtype=dtype)
    assert isinstance(scorer, Scorer)
    return scorer

"""A small text-to-image pipeline, trained by this project on synthetic scenes, with anchors, rewards and prompts.

Everything works offline: the weights are package data, made by ``python -m deradiff.testbed.build``.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deradiff.errors import AnchorError

if TYPE_CHECKING:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    from deradiff.testbed.judge import faithfulness as faithfulness
    from deradiff.testbed.judge import scene_distance as scene_distance
    from deradiff.testbed.judge import warmth as warmth

__all__ = [
    "DEFAULT_ANCHOR",
    "DEMO_PROMPTS",
    "EMBEDDED",
    "anchor_names",
    "anchor_path",
    "faithfulness",
    "is_embedded",
    "load_pipeline",
    "pipeline_path",
    "prompts",
    "resolve_anchor",
    "resolve_model",
    "scene_distance",
    "warmth",
]

EMBEDDED = "embedded"  # name of the pipeline; its anchors are named embedded:NAME
DEFAULT_ANCHOR = "warmth-beta0.2-seed0"
DEMO_PROMPTS = (
    "a white circle",
    "a black circle left of a white square",
    "a small white circle on a black background",
    "a yellow circle above a white triangle on a blue background",
    "a green triangle above a blue circle",
    "a large blue circle on a white background",
    "a white square right of a green circle on a purple background",
    "a purple triangle",
    "a small green square",
    "a large blue circle",
    "a large purple triangle on a yellow background",
    "a red square left of a blue circle on a white background",
)
_DATA = Path(__file__).parent / "data"


def load_pipeline() -> "StableDiffusionPipeline":
    """The embedded pipeline, in float32 on the CPU; 64 x 64 pixels, about 20 steps, no guidance needed."""
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        pipeline_path(), dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline_path() -> Path:
    """The folder of the embedded pipeline, in diffusers' layout."""
    return _DATA / "pipeline"


def anchor_names() -> list[str]:
    """Names of the embedded anchors, from the weakest regularisation to the strongest."""
    folders = sorted((_DATA / "anchors").glob("*/"))
    return sorted((folder.name for folder in folders), key=lambda name: float(name.split("-")[1].removeprefix("beta")))


def anchor_path(name: str = DEFAULT_ANCHOR) -> Path:
    """The folder of an anchor, a LoRA for ``pipe.load_lora_weights``.

    Raises:
        AnchorError: no embedded anchor has that name.
    """
    if name not in anchor_names():
        raise AnchorError(f"no embedded anchor is called {name!r}: choose one of {', '.join(anchor_names())}")
    return _DATA / "anchors" / name


def prompts(count: int, seed: int = 0, *, drop: float = 0.0) -> list[str]:
    """``count`` different captions, determined by the seed.

    Args:
        count: number of captions.
        seed: of the choice.
        drop: probability that a caption omits the size, and likewise the background. Samples of captions that name
            every attribute hardly differ in reward, so align on captions that leave some open.
    """
    import numpy as np

    from deradiff.testbed.captions import random_caption
    from deradiff.testbed.scenes import random_scene

    rng = np.random.default_rng(seed)
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        chosen[random_caption(random_scene(rng, pair_share=0.5), rng, drop=drop)] = None
    return list(chosen)


def __getattr__(name: str) -> Any:
    if name in ("faithfulness", "scene_distance", "warmth"):
        return getattr(import_module("deradiff.testbed.judge"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def resolve_model(name: str) -> str:
    """A pipeline's folder or hub id; ``embedded`` is the embedded one."""
    return str(pipeline_path()) if name == EMBEDDED else name


def is_embedded(model: str) -> bool:
    """Whether a model, as :func:`resolve_model` takes it, is the embedded pipeline."""
    return os.path.realpath(resolve_model(model)) == os.path.realpath(pipeline_path())


def resolve_anchor(name: str) -> str:
    """An anchor's folder or hub id; ``embedded`` and ``embedded:NAME`` are embedded ones.

    Raises:
        AnchorError: no embedded anchor of that name.
    """
    prefix, _, anchor = name.partition(":")
    if prefix != EMBEDDED:
        return name
    return str(anchor_path(anchor) if anchor else anchor_path())

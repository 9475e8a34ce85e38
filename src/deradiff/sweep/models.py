"""Loading what a sweep runs on, and calling it."""

import inspect
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

from deradiff.errors import PlanError
from deradiff.sweep.plan import Plan


def load_pipeline(model: str, *, device: str = "cpu", half: bool = False) -> Any:
    """A pipeline from a folder or the hub, by safetensors only.

    Raises:
        PlanError: it can't be found or read.
    """
    dtype = torch.float16 if half else torch.float32
    try:
        pipe = DiffusionPipeline.from_pretrained(
            model, dtype=dtype, use_safetensors=True, local_files_only=Path(model).is_dir()
        )
    except (OSError, ValueError) as error:
        raise PlanError(f"the model {model!r} can't be loaded: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe.to(device)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(f"the device {device!r} can't be used: {error}") from error


def set_scheduler(pipe: Any, name: str | None) -> None:
    """Give a pipeline another scheduler of diffusers, built from the config of its own.

    Raises:
        PlanError: no scheduler of that name, or one that doesn't suit the pipeline.
    """
    if name is None or type(pipe.scheduler).__name__ == name:
        return
    suited = sorted({cls.__name__ for cls in pipe.scheduler.compatibles} | {type(pipe.scheduler).__name__})
    if name not in suited:
        raise PlanError(f"{name!r} is no scheduler for {type(pipe).__name__}; choose from {suited}")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)


def noise_seed(prompt: str, seed: int) -> int:
    """Where the generator of an image starts: 63 bits of a hash of prompt and seed."""
    return int.from_bytes(sha256(f"{seed}\n{prompt}".encode()).digest()[:8], "big") >> 1


def call(pipe: Any, plan: Plan, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """One batch: an image for each (prompt, seed), each with a generator of its own.

    The generator starts from both, so that one seed means independent noise for each prompt: prompts stay independent
    when results are averaged over them.

    Raises:
        PlanError: the pipeline takes no such setting.
    """
    generators = [torch.Generator().manual_seed(noise_seed(p, s)) for p, s in zip(prompts, seeds, strict=True)]
    settings: dict[str, Any] = {"guidance_scale": plan.guidance, "height": plan.height, "width": plan.width}
    settings = {name: value for name, value in settings.items() if value is not None}
    unknown = [name for name in settings if name not in inspect.signature(type(pipe).__call__).parameters]
    if unknown:
        raise PlanError(f"{type(pipe).__name__} takes no {', '.join(unknown)}; leave it out")
    output = pipe(prompt=list(prompts), generator=generators, num_inference_steps=plan.steps, **settings)
    return list(output.images)

"""Loading what a sweep runs on, and calling it."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from deradiff.errors import PlanError
from deradiff.sweep.plan import Plan


def load_pipeline(model: str, *, device: str = "cpu", dtype: str = "float32", offload: bool = False) -> Any:
    """A pipeline from a folder or the hub, by safetensors only.

    Args:
        model: folder or hub id.
        device: where it runs.
        dtype: of its weights: float32, float16 or bfloat16.
        offload: keep each network on the CPU while it isn't called.

    Raises:
        PlanError: it can't be found or read, or the device can't be used so.
    """
    if offload and device == "cpu":
        raise PlanError(
            "offloading keeps networks on the CPU until they run elsewhere; give --device too, such as cuda"
        )
    try:
        pipe = DiffusionPipeline.from_pretrained(
            model, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=Path(model).is_dir()
        )
    except (OSError, ValueError) as error:
        raise PlanError(f"the model {model!r} can't be loaded: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    try:
        if offload:
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.to(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise PlanError(f"the device {device!r} can't be used: {error}") from error
    return pipe


# made for the models of the others, though diffusers doesn't list them among these
_FOR_DISTILLED = {"LCMScheduler", "TCDScheduler"}


def set_scheduler(pipe: Any, name: str | None) -> None:
    """Give a pipeline another scheduler of diffusers, built from the config of its own.

    Raises:
        PlanError: as :func:`check_scheduler`.
    """
    check_scheduler(pipe, name)
    if name is not None and type(pipe.scheduler).__name__ != name:
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)


def check_scheduler(pipe: Any, name: str | None) -> None:
    """Refuse a name that :func:`set_scheduler` couldn't set.

    Raises:
        PlanError: no scheduler of that name, or one that doesn't suit the pipeline.
    """
    own = type(pipe.scheduler).__name__
    if name in (None, own):
        return
    like: Any = diffusers.DDIMScheduler() if own in _FOR_DISTILLED else pipe.scheduler
    suited = {cls.__name__ for cls in like.compatibles} | {own}
    if "DDIMScheduler" in suited:
        suited |= _FOR_DISTILLED
    if name not in suited:
        raise PlanError(f"{name!r} is no scheduler for {type(pipe).__name__}; choose from {sorted(suited)}")


def call(
    pipe: Any,
    plan: Plan,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    images_per_prompt: int,
    guidance: float | None,
    **settings: Any,
) -> list[Any]:
    """One call of a pipeline with a plan's steps and size.

    Args:
        pipe: the pipeline.
        plan: gives steps, height and width.
        prompts: P prompts.
        generators: one a row, P x images_per_prompt, the rows of one prompt together.
        images_per_prompt: rows a prompt.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        settings: whatever else the pipeline takes, such as ``output_type``.

    Returns:
        One image a row, in the order of the generators; PIL images unless ``output_type`` asks for others.

    Raises:
        PlanError: the pipeline draws no images, or takes no such setting.
    """
    given = {"guidance_scale": guidance, "height": plan.height, "width": plan.width, **settings}
    given = {name: value for name, value in given.items() if value is not None}
    taken = inspect.signature(type(pipe).__call__).parameters
    if "num_images_per_prompt" not in taken:
        raise PlanError(
            f"{type(pipe).__name__} can't be swept: expected a pipeline that draws images from prompts, one that takes "
            "num_images_per_prompt"
        )
    if unknown := [name for name in given if name not in taken]:
        raise PlanError(f"{type(pipe).__name__} takes no {', '.join(unknown)}; leave it out")
    output = pipe(
        prompt=list(prompts),
        num_images_per_prompt=images_per_prompt,
        generator=list(generators),
        num_inference_steps=plan.steps,
        **given,
    )
    return list(output.images)


@contextmanager
def decoding_one_by_one(pipe: Any) -> Iterator[None]:
    """Decode latents one image at a time where the pipeline's VAE can: many rows at once would exhaust memory."""
    vae: Any = getattr(pipe, "vae", None)
    if not hasattr(vae, "use_slicing") or vae.use_slicing:
        yield
        return
    vae.enable_slicing()
    try:
        yield
    finally:
        vae.disable_slicing()

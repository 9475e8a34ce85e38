"""Loading what a run is sampled with, and calling it."""

import inspect
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError

from deradiff.anchor.lora import in_short
from deradiff.anchor.source import choose_variant
from deradiff.compat import traits_of
from deradiff.errors import AnchorError, ConfigError
from deradiff.runs.recipe import Recipe


def load_pipeline(model: str, *, device: str = "cpu", dtype: str = "float32", offload: bool = False) -> Any:
    """A pipeline from a folder or the hub, by safetensors only.

    Of a folder the plain weights are taken, or the variant (fp16) that is there alone.

    Args:
        model: folder or hub id.
        device: where it runs.
        dtype: of its weights: float32, float16 or bfloat16.
        offload: keep each network on the CPU while it isn't called.

    Raises:
        ConfigError: it can't be found or read, or the device can't be used so.
    """
    if offload and device == "cpu":
        raise ConfigError(
            "offloading keeps networks on the CPU until they run elsewhere; give --device too, such as cuda"
        )
    if os.path.isfile(model):
        raise ConfigError(f"the model {model!r} is a file; give a pipeline folder (with model_index.json) or a hub id")
    try:
        pipe = _from_pretrained(model, dtype)
    except AnchorError as error:
        raise ConfigError(f"the model {model!r} can't be loaded: {error}") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ConfigError(f"the model {model!r} can't be loaded: {in_short(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    try:
        if offload:
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.to(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"the device {device!r} can't be used: {error}") from error
    return pipe


def _from_pretrained(model: str, dtype: str) -> Any:
    folder = Path(model)
    variant = None
    for part in sorted(folder.iterdir()) if folder.is_dir() else []:
        if part.is_dir() and (part / "config.json").is_file():
            variant = choose_variant([file.name for file in part.iterdir()], str(part)) or variant
    return DiffusionPipeline.from_pretrained(
        model, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=folder.is_dir(), variant=variant
    )


# made for the models of the others, though diffusers doesn't list them among these
_FOR_DISTILLED = {"LCMScheduler", "TCDScheduler"}


def set_scheduler(pipe: Any, name: str | None) -> None:
    """Give a pipeline another scheduler of diffusers, built from the config of its own.

    Raises:
        ConfigError: as :func:`check_scheduler`.
    """
    check_scheduler(pipe, name)
    if name is not None and type(pipe.scheduler).__name__ != name:
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)


def check_scheduler(pipe: Any, name: str | None) -> None:
    """Check that :func:`set_scheduler` can set a name, and that a cell's seed decides its image there.

    Raises:
        ConfigError: no scheduler of that name, or one that doesn't suit the pipeline, or draws noise from a source of
            its own.
    """
    current = type(pipe.scheduler).__name__
    if name in (None, current):
        return _check_seeded(type(pipe.scheduler))
    like: Any = diffusers.DDIMScheduler() if current in _FOR_DISTILLED else pipe.scheduler
    suited = {cls.__name__ for cls in like.compatibles} | {current}
    if "DDIMScheduler" in suited:
        suited |= _FOR_DISTILLED
    if name not in suited:
        raise ConfigError(f"{name!r} is no scheduler for {type(pipe).__name__}; choose from {sorted(suited)}")
    return _check_seeded(getattr(diffusers, str(name)))


def _check_seeded(scheduler: type) -> None:
    if traits_of(scheduler).seeds_itself:
        raise ConfigError(
            f"{scheduler.__name__} draws its noise from a source of its own, for a whole batch at once, so an image "
            "would not be that of its seed; give another --scheduler, such as EulerAncestralDiscreteScheduler, or "
            "DPMSolverMultistepScheduler"
        )


def call_flagged(
    pipe: Any,
    recipe: Recipe,
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    guidance: float | None,
    **settings: Any,
) -> tuple[list[Any], list[int]]:
    """One call of a pipeline with a recipe's steps and size.

    Args:
        pipe: the pipeline.
        recipe: gives steps, height and width.
        prompts: one an image.
        generators: one an image.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        settings: whatever else the pipeline takes, such as ``output_type``.

    Returns:
        The images, in the order of the prompts, PIL images unless ``output_type`` asks for others; and the indices of
        those that the pipeline's safety checker made black.

    Raises:
        ConfigError: the pipeline draws no images, or takes no such setting.
    """
    arguments = {"guidance_scale": guidance, "height": recipe.height, "width": recipe.width, **settings}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    taken = inspect.signature(type(pipe).__call__).parameters
    if "num_images_per_prompt" not in taken:
        raise ConfigError(
            f"{type(pipe).__name__} can't be swept: expected a pipeline that draws images from prompts, one that takes "
            "num_images_per_prompt"
        )
    if unknown := [name for name in arguments if name not in taken]:
        raise ConfigError(f"{type(pipe).__name__} takes no {', '.join(unknown)}; leave it out")
    arguments = {name: _for_each_row(name, value, len(prompts), taken) for name, value in arguments.items()}
    output = pipe(prompt=list(prompts), generator=list(generators), num_inference_steps=recipe.steps, **arguments)
    flags = getattr(output, "nsfw_content_detected", None) or []
    return list(output.images), [index for index, flag in enumerate(flags) if flag]


def call(*args: Any, **kwargs: Any) -> list[Any]:
    """The images of :func:`call_flagged`."""
    return call_flagged(*args, **kwargs)[0]


def _for_each_row(name: str, value: Any, count: int, taken: Container[str]) -> Any:
    """What has to be given once a row: negative prompts, and the pictures of inpainting.

    Inpainting pipelines would encode a single picture with the generator of the first row, and an image would depend on
    which one that is.
    """
    repeated = name.startswith("negative_prompt") and isinstance(value, str)
    repeated |= "mask_image" in taken and name in ("image", "mask_image") and not isinstance(value, list)
    return [value] * count if repeated else value


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

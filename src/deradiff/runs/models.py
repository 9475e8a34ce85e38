"""Loading what a run is sampled with, and calling it."""

import glob
import inspect
import logging
import os
from collections.abc import Container, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RevisionNotFoundError
from safetensors import SafetensorError
from torch import nn

from deradiff.anchor.location import Location
from deradiff.anchor.lora import in_short
from deradiff.anchor.source import Kind, resolve_anchor
from deradiff.compat import traits_of
from deradiff.devices import pick_device
from deradiff.errors import AnchorError, ConfigError, abbreviate
from deradiff.reading import read_object
from deradiff.runs.model_files import WEIGHTS, find_single_file_configs, read_dtype
from deradiff.runs.pipeline_folder import load_folder
from deradiff.runs.recipe import Recipe
from deradiff.testbed import resolve_model

logger = logging.getLogger("deradiff")

# what diffusers and transformers raise for files and configs that don't fit
_UNREADABLE = (
    OSError, ValueError, RuntimeError, LookupError, ArithmeticError, TypeError, AttributeError, SafetensorError,
)  # fmt: skip
_SIDECARS = (".json", ".txt", ".model")  # configs and tokenizers


def load_pipeline(
    model: str, *, location: Location | None = None, device: str = "cpu", dtype: str = "float32", offload: bool = False
) -> Any:
    """A pipeline from a folder, a single-file checkpoint or the hub, by safetensors only.

    Of a folder the plain weights are taken, or the variant (fp16) that is there alone.

    Args:
        model: folder, .safetensors file (:func:`find_single_file_configs` says where its configs are) or hub id.
        location: where in the folder or repository it lies.
        device: where it runs; ``auto`` is an accelerator where there is one.
        dtype: of its weights: float32, float16, bfloat16, or ``auto``, what its files hold.
        offload: keep each network on the CPU while it isn't called.

    Raises:
        ConfigError: it can't be found or read, or the device can't be used so.
    """
    location, device = location or Location(), pick_device(device)
    if offload and device == "cpu":
        raise ConfigError(
            "offloading keeps networks on the CPU until they run elsewhere; give --device too, such as cuda"
        )
    path = fetch_model(model, location)
    dtype = read_dtype(path, location.variant) if dtype == "auto" else dtype
    if dtype == "float16" and device == "cpu":
        logger.warning(
            "float16 is slow on the CPU, and some networks don't run in it; float32 is what CPUs are made for"
        )
    with _load_errors(model):
        if path.is_file():
            pipe = _from_single_file(path, dtype)
        else:
            pipe = load_folder(path, location.variant, getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)
    try:
        if offload:
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.to(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"the device {device!r} can't be used: {error}") from error
    return pipe


def fetch_model(model: str, location: Location) -> Path:
    """The folder or file of a pipeline; what is needed of a repository on the hub is fetched.

    Raises:
        ConfigError: it can't be found.
    """
    path = Path(os.path.expanduser(model))
    try:
        on_disk = path.exists()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"the model {abbreviate(model)!r} can't be a path or a hub id ({reason})") from error
    location.check_applies(f"the model {model}", path if on_disk else None, ConfigError)
    inside = (path if on_disk else _fetch_from_hub(model, location)) / (location.subfolder or "")
    if not inside.is_dir() and not inside.is_file():
        lacks = f"has no subfolder {location.subfolder!r}" if location.subfolder else "is neither a folder nor a file"
        raise ConfigError(f"the model {model!r} {lacks}")
    if inside.is_file() and inside.suffix != WEIGHTS:
        raise ConfigError(
            f"{inside} is no .safetensors file (others are pickles, which can run code: convert them); give a "
            "checkpoint, a pipeline's folder or a hub id"
        )
    if inside.is_dir() and not (inside / "model_index.json").is_file():
        raise ConfigError(f"{inside} is no pipeline: it has no model_index.json; give a pipeline's folder")
    return inside


def _fetch_from_hub(model: str, location: Location) -> Path:
    """The folder to which a repository was fetched."""
    revision, variant = location.revision, location.variant
    try:
        if location.subfolder is None:
            fetched = DiffusionPipeline.download(model, revision=revision, variant=variant, use_safetensors=True)
        else:
            patterns = [f"{glob.escape(location.subfolder)}/*{ending}" for ending in (WEIGHTS, *_SIDECARS)]
            fetched = snapshot_download(model, revision=revision, allow_patterns=patterns)
    except Exception as error:  # of the network, of the disk, of the cache
        cause = error.__cause__ or error
        if isinstance(cause, RevisionNotFoundError):
            raise ConfigError(f"the model {model!r} has no revision {revision!r} on the hub") from error
        if isinstance(cause, HFValidationError):
            raise ConfigError(
                f"the model {abbreviate(model)!r} is no folder or file on this machine, and no hub id; give one"
            ) from error
        first = str(cause).strip().partition("\n")[0]
        raise ConfigError(
            f"the model {model!r} is neither on this machine nor can it be fetched from the hub "
            f"({type(cause).__name__}: {abbreviate(first, 200)}); give a folder, a file or a hub id"
        ) from error
    return Path(fetched)


def with_stored_dtype(recipe: Recipe) -> Recipe:
    """A recipe whose dtype is what the model's files hold where it was ``auto``; fetches a model from the hub.

    Raises:
        ConfigError: the model can't be found, or its files hold no such dtype.
    """
    if recipe.dtype != "auto":
        return recipe
    location = recipe.model_location
    path = fetch_model(resolve_model(recipe.model), location)
    return recipe.model_copy(update={"dtype": read_dtype(path, location.variant)})


@contextmanager
def _load_errors(model: str) -> Generator[None]:
    try:
        yield
    except AnchorError as error:
        raise ConfigError(f"the model {model!r} can't be loaded: {error}") from error
    except ConfigError:
        raise
    except _UNREADABLE as error:
        raise ConfigError(
            f"the model {abbreviate(model)!r} can't be loaded: {in_short(error)}: fetch it again, or give another"
        ) from error


def _from_single_file(file: Path, dtype: str) -> Any:
    """A pipeline from a checkpoint in the original layout, by configs beside it or those of its kind on the hub."""
    if resolve_anchor(file, []).kind is Kind.LORA:
        raise ConfigError(
            f"the model {file} is a LoRA; give it as --anchor, and the pipeline it was made for as --model"
        )
    configs = find_single_file_configs(file) or _fetch_configs(file)
    name = read_object(configs / "model_index.json", "the model index", ConfigError).get("_class_name")
    pipeline: Any = getattr(diffusers, str(name), None)
    if not hasattr(pipeline, "from_single_file"):
        raise ConfigError(
            f"{configs / 'model_index.json'} is of a {name}, which diffusers can't read from a single file"
        )
    lacks = f"{file} lacks weights of a {name} by the configs in {configs}: give those of its kind, or fetch it again"
    try:
        pipe = pipeline.from_single_file(
            str(file), config=str(configs), local_files_only=True, torch_dtype=getattr(torch, dtype)
        )
    except NotImplementedError as error:  # torch's word on weights that the file didn't fill
        raise ConfigError(lacks) from error
    except Exception as error:  # whatever diffusers' conversions stumble over
        raise ConfigError(
            f"{file} can't be read as a {name} by the configs in {configs}: {in_short(error)}; give those of its kind"
        ) from error
    networks = (part for part in pipe.components.values() if isinstance(part, nn.Module))
    if any(weight.is_meta for network in networks for weight in network.parameters()):
        raise ConfigError(lacks)
    return pipe


def _fetch_configs(file: Path) -> Path:
    """The configs that a checkpoint's kind has on the hub."""
    try:
        repository = fetch_diffusers_config(load_single_file_checkpoint(str(file), local_files_only=True))
        name = repository["pretrained_model_name_or_path"]
        return Path(snapshot_download(name, allow_patterns=[f"*{ending}" for ending in _SIDECARS]))
    except Exception as error:  # of the network, of the disk, of the cache
        raise ConfigError(
            f"the configs of {file} are neither beside it nor on the hub ({type(error).__name__}): put those of a "
            f"pipeline of its kind (model_index.json and folders, tokenizer included) into {file.with_suffix('')}/"
        ) from error


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
def decoding_one_by_one(pipe: Any) -> Generator[None]:
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

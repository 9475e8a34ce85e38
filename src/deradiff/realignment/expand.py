"""K particles an image in one call of a pipeline: arguments for K times the images, and the chosen of its output."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from deradiff.compat import SHARE_PICTURES, is_kind
from deradiff.errors import RealignError
from deradiff.realignment.rows import REPEATS, BatchInfo

# parts of the names of arguments of which there is one a prompt
_OF_A_PROMPT = ("prompt", "embed", "image", "mask", "video", "class_labels", "prior_token")
_ADAPTER = "ip_adapter"
# pipelines in which a list of pictures is what all prompts are given
_TEXTS = ("prompt", "negative_prompt")  # how the names of those begin that may be strings

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def expanded(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: BatchInfo) -> Arguments:
    """The arguments of a call with ``run.particles`` rows an image, side by side.

    Of generators, one an image, the first particle takes the image's own and the others are seeded from its state.

    Raises:
        RealignError: the pipeline can't be asked for several images a prompt, or is given latents for one an image.
    """
    taken = inspect.signature(call).parameters
    given = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    positional = list(given)[: len(args)]
    _check_latents(given, run)
    changed: dict[str, Any] = {"num_images_per_prompt": run.repeats * run.particles}
    pipe = getattr(call, "__self__", None)
    shared = is_kind(pipe, SHARE_PICTURES)
    if not _repeats_itself(given, taken, run, shared=shared):
        nets = any(hasattr(part, "nets") for part in getattr(pipe, "components", {}).values())
        changed = _repeated(given, taken, run, nets=nets)
    generator = given.get("generator")
    if isinstance(generator, list):
        changed["generator"] = [one for own in generator for one in (own, *fork_generators(own, run.particles)[1:])]
    args = tuple(changed.pop(name, given[name]) for name in positional)
    return args, {**kwargs, **changed}


def resampling_generators(given: Mapping[str, Any], images: int) -> list[Generator]:
    """One generator an image, which draws who survives: seeded from its own where there is one."""
    generator = given.get("generator")
    if isinstance(generator, list):
        return [fork_generators(own, 1)[0] for own in generator]
    return fork_generators(generator, images)


def fork_generators(generator: Generator | None, count: int) -> list[Generator]:
    """Generators seeded from the state of one, which is left as it was; from the global one where there is none."""
    source = None if generator is None else generator.clone_state()
    device = None if generator is None else generator.device
    seeds = torch.randint(2**62, (count,), generator=source, device=device).tolist()
    return [torch.Generator(device or "cpu").manual_seed(seed) for seed in seeds]


def select_rows(output: Any, rows: int, index: Tensor) -> Any:
    """A pipeline's output with some of its rows only: images, frames, flags, whatever has one entry a row."""
    if is_dataclass(output) and not isinstance(output, type):
        return replace(output, **{f.name: _take(getattr(output, f.name), rows, index) for f in fields(output)})
    if isinstance(output, tuple):
        return tuple(_take(value, rows, index) for value in output)
    return _take(output, rows, index)


def _take(value: Any, rows: int, index: Tensor) -> Any:
    if not isinstance(value, Tensor | np.ndarray | list) or len(value) != rows:
        return value
    if isinstance(value, Tensor):
        return value[index.to(value.device)]
    return value[index.numpy()] if isinstance(value, np.ndarray) else [value[row] for row in index.tolist()]


def _repeats_itself(given: Mapping[str, Any], taken: Mapping[str, Any], run: BatchInfo, *, shared: bool) -> bool:
    """Whether the pipeline can be trusted to repeat what it is given, side by side.

    Video pipelines seldom do, embeddings are often forgotten, and images of several prompts are tiled (A, B, A, B)
    beside prompts that are repeated (a, a, b, b).
    """
    of_a_prompt = {name for name, value in given.items() if value is not None and _is_of_a_prompt(name)}
    embeddings = any("embed" in name and not name.startswith(_ADAPTER) for name in of_a_prompt)
    pictures = not shared and run.prompts != 1 and any(not name.startswith(_TEXTS) for name in of_a_prompt)
    return "num_images_per_prompt" in taken and not embeddings and not pictures


def _is_of_a_prompt(name: str) -> bool:
    return name not in REPEATS and any(part in name for part in _OF_A_PROMPT)


def _repeated(given: Mapping[str, Any], taken: Mapping[str, Any], run: BatchInfo, *, nets: bool) -> dict[str, Any]:
    """What there is one of per prompt, repeated for each row of that prompt."""
    times = run.repeats * run.particles
    changed: dict[str, Any] = {name: 1 for name in REPEATS if name in taken}
    for name, value in given.items():
        if name == "batch_size":
            changed[name] = value * times
        elif _is_of_a_prompt(name):
            of_nets = nets and isinstance(value, list) and not name.startswith(_TEXTS)  # one a ControlNet
            parts = [_repeat(name, item, run, times) for item in value] if of_nets else _repeat(name, value, run, times)
            changed[name] = parts
    return changed


def _repeat(name: str, value: Any, run: BatchInfo, times: int) -> Any:
    if isinstance(value, str):
        return [value] * (run.prompts or 1) * times if name.startswith(_TEXTS) else value
    if isinstance(value, Tensor):
        guided = 2 if name.startswith(_ADAPTER) else 1  # [negative, positive], each of all prompts
        fits = value.ndim > 0 and run.prompts and len(value) in (run.prompts, guided * run.prompts)
        return value.repeat_interleave(times, dim=0) if fits else value
    if not isinstance(value, list):
        return value
    if any(isinstance(item, Tensor) and item.ndim > 2 and len(item) == run.prompts for item in value):
        return [_repeat(name, item, run, times) for item in value]  # one an adapter
    return [item for item in value for _ in range(times)] if len(value) == run.prompts else value


def check_generators(given: Mapping[str, Any], run: BatchInfo) -> None:
    """Raise RealignError for another number of generators than of images."""
    generator = given.get("generator")
    if isinstance(generator, tuple) or (isinstance(generator, list) and len(generator) != run.images):
        raise RealignError(
            f"got a {type(generator).__name__} of {len(generator)} generators for {run.images} images; give one "
            "generator, or a list with one an image"
        )


def _check_latents(given: Mapping[str, Any], run: BatchInfo) -> None:
    latents = given.get("latents")
    if latents is not None and len(latents) != run.rows:
        raise RealignError(
            f"got latents for {len(latents)} rows, but {run.images} images of {run.particles} particles start from "
            f"{run.rows} noises of their own; give that many, or leave latents out"
        )

"""K particles an image in one call of a pipeline: arguments for K times the images, and some rows of its output."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from deradiff.compat import SHARE_PICTURES, is_kind
from deradiff.errors import RealignError
from deradiff.realignment.batch import REPEATS, BatchInfo, PipelineCall

# parts of the names of arguments of which there is one a prompt
_OF_A_PROMPT = ("prompt", "embed", "image", "mask", "video", "class_labels", "prior_token")
_ADAPTER = "ip_adapter"
_TEXTS = ("prompt", "negative_prompt")  # how the names of those begin that may be strings


def expand_call(call: PipelineCall, batch: BatchInfo) -> PipelineCall:
    """The call with ``batch.particles`` rows an image, side by side.

    Of generators, one an image, the first particle takes the image's own and the others are seeded from its state.

    Raises:
        RealignError: the pipeline can't be asked for several images a prompt, is given latents for one an image, or
            would return all of its state.
    """
    _check_latents(call.arguments, batch)
    _check_output(call)
    changed: dict[str, Any] = {"num_images_per_prompt": batch.repeats * batch.particles}
    if not _repeats_itself(call, batch, shared=is_kind(call.pipe, SHARE_PICTURES)):
        nets = any(hasattr(part, "nets") for part in getattr(call.pipe, "components", {}).values())
        changed = _repeated(call, batch, nets=nets)
    generator = call.arguments.get("generator")
    if isinstance(generator, list):
        changed["generator"] = [
            one for first in generator for one in (first, *fork_generators(first, batch.particles)[1:])
        ]
    return call.changed(changed)


def resampling_generators(generator: Any, images: int) -> list[Generator]:
    """One generator an image, which draws who survives: seeded from its own where there is one."""
    if isinstance(generator, list):
        return [fork_generators(one, 1)[0] for one in generator]
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
    if isinstance(output, dict):
        return {name: _take(value, rows, index) for name, value in output.items()}
    return _take(output, rows, index)


def _take(value: Any, rows: int, index: Tensor) -> Any:
    if not isinstance(value, Tensor | np.ndarray | list) or len(value) != rows:
        return value
    if isinstance(value, Tensor):
        return value[index.to(value.device)]
    return value[index.numpy()] if isinstance(value, np.ndarray) else [value[row] for row in index.tolist()]


def _repeats_itself(call: PipelineCall, batch: BatchInfo, *, shared: bool) -> bool:
    """Whether the pipeline can be trusted to repeat its arguments, side by side.

    Video pipelines seldom do, embeddings are often forgotten, images of several prompts are tiled (A, B, A, B)
    beside prompts that are repeated (a, a, b, b), and so are pooled embeddings by the blocks of a modular SDXL.
    """
    if call.is_modular:
        return False
    per_prompt = {name for name, value in call.arguments.items() if value is not None and _is_per_prompt(name)}
    embeddings = any("embed" in name and not name.startswith(_ADAPTER) for name in per_prompt)
    pictures = not shared and batch.prompts != 1 and any(not name.startswith(_TEXTS) for name in per_prompt)
    return "num_images_per_prompt" in call.parameters and not embeddings and not pictures


def _is_per_prompt(name: str) -> bool:
    return name not in REPEATS and any(part in name for part in _OF_A_PROMPT)


def _repeated(call: PipelineCall, batch: BatchInfo, *, nets: bool) -> dict[str, Any]:
    """What there is one of per prompt, repeated for each row of that prompt."""
    times = batch.repeats * batch.particles
    changed: dict[str, Any] = {name: 1 for name in REPEATS if name in call.parameters}
    for name, value in call.arguments.items():
        if name == "batch_size":
            changed[name] = value * times
        elif _is_per_prompt(name):
            one_a_net = nets and isinstance(value, list) and not name.startswith(_TEXTS)  # of several ControlNets
            changed[name] = (
                [_repeat(name, item, batch, times) for item in value]
                if one_a_net
                else _repeat(name, value, batch, times)
            )
    return changed


def _repeat(name: str, value: Any, batch: BatchInfo, times: int) -> Any:
    if isinstance(value, str):
        return [value] * (batch.prompts or 1) * times if name.startswith(_TEXTS) else value
    if isinstance(value, Tensor):
        guided = 2 if name.startswith(_ADAPTER) else 1  # [negative, positive], each of all prompts
        fits = value.ndim > 0 and batch.prompts and len(value) in (batch.prompts, guided * batch.prompts)
        return value.repeat_interleave(times, dim=0) if fits else value
    if not isinstance(value, list):
        return value
    if any(isinstance(item, Tensor) and item.ndim > 2 and len(item) == batch.prompts for item in value):
        return [_repeat(name, item, batch, times) for item in value]  # one an adapter
    return [item for item in value for _ in range(times)] if len(value) == batch.prompts else value


def check_generators(generator: Any, batch: BatchInfo) -> None:
    """Raise RealignError for another number of generators than of images."""
    if isinstance(generator, tuple) or (isinstance(generator, list) and len(generator) != batch.images):
        raise RealignError(
            f"got a {type(generator).__name__} of {len(generator)} generators for {batch.images} images; give one "
            "generator, or a list with one an image"
        )


def _check_latents(arguments: Mapping[str, Any], batch: BatchInfo) -> None:
    latents = arguments.get("latents")
    if latents is not None and len(latents) != batch.rows:
        raise RealignError(
            f"got latents for {len(latents)} rows, but {batch.images} images of {batch.particles} particles start from "
            f"{batch.rows} noises of their own; give that many, or leave latents out"
        )


def _check_output(call: PipelineCall) -> None:
    """A modular pipeline's state holds much beside images, of which nothing says what has one entry a row."""
    if call.is_modular and call.arguments.get("output") is None:
        raise RealignError(
            "with particles a modular pipeline must be asked for what is to be chosen from; give output='images'"
        )

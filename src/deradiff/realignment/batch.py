"""A pipeline's call, its batch, and from one lam an image to one lam a row of the denoiser's batch.

A pipeline of P prompts and n images a prompt makes P·n images, in prompt-major order, and stacks them once per branch
of guidance: rows = [branch 1: all images, branch 2: all images, ...].
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deradiff.errors import LamError

# Names under which diffusers pipelines take what there is one of per prompt, and the images of each.
_PER_PROMPT = ("prompt", "prompt_embeds", "class_labels", "image_embeds", "input_ids", "image", "batch_size")
REPEATS = (
    "num_images_per_prompt",
    "num_videos_per_prompt",
    "num_waveforms_per_prompt",
    "num_audios_per_prompt",
)


@dataclass(frozen=True)
class PipelineCall:
    """``call(*args, **kwargs)`` of a pipeline, not run yet."""

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def pipe(self) -> Any:
        """The pipeline."""
        return getattr(self.call, "__self__", None)

    @cached_property
    def parameters(self) -> set[str]:
        """Names of what the call takes; a modular pipeline's takes the inputs of its blocks."""
        return {*inspect.signature(self.call).parameters, *(self.pipe.blocks.input_names if self.is_modular else ())}

    @property
    def is_modular(self) -> bool:
        """Whether the pipeline is made of blocks (diffusers' ``ModularPipeline``)."""
        return hasattr(self.pipe, "blocks")

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What it is given, by name, in the order of its parameters."""
        try:
            bound = inspect.signature(self.call).bind_partial(*self.args, **self.kwargs).arguments
        except TypeError:  # the pipeline itself will say what is wrong with its arguments
            bound = dict(self.kwargs)
        return {**bound, **bound.get("kwargs", {})}

    def run(self) -> Any:
        """The pipeline's output."""
        return self.call(*self.args, **self.kwargs)

    def changed(self, arguments: Mapping[str, Any]) -> "PipelineCall":
        """The call with other values for some arguments."""
        by_name = dict(arguments)
        positional = list(self.arguments)[: len(self.args)]
        args = tuple(by_name.pop(name, self.arguments[name]) for name in positional)
        return replace(self, args=args, kwargs={**self.kwargs, **by_name})


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What a pipeline's call says of its batch: prompts, None where it doesn't say; images of each; K particles."""

    prompts: int | None
    repeats: int
    particles: int = 1

    @property
    def images(self) -> int:
        """Prompts x images a prompt, where prompts are known."""
        return (self.prompts or 0) * self.repeats

    @property
    def rows(self) -> int:
        """Of the scheduler's batch, where prompts are known."""
        return self.images * self.particles


def infer_batch(call: PipelineCall, particles: int = 1) -> BatchInfo:
    """Read prompts and images per prompt off the arguments of a pipeline's call."""
    arguments = call.arguments
    counts = (_count(name, arguments[name]) for name in _PER_PROMPT if arguments.get(name) is not None)
    repeats = next((int(arguments[name]) for name in REPEATS if arguments.get(name)), 1)
    return BatchInfo(prompts=next((count for count in counts if count), None), repeats=repeats, particles=particles)


def _count(name: str, value: object) -> int | None:
    if isinstance(value, str) or (name == "image" and isinstance(value, Tensor) and value.ndim == 3):
        return 1
    if isinstance(value, int):
        return value
    if isinstance(value, Tensor) and value.ndim > 1:
        return value.shape[0]
    return len(value) if isinstance(value, Sequence) else None


def check_count(lams: int, batch: BatchInfo) -> None:
    """Check, before any network runs, that a number of lams fits prompts or images.

    Raises:
        LamError: the counts, and which would fit.
    """
    if lams == 1 or batch.prompts is None:
        return
    images = batch.prompts * batch.repeats
    if lams not in (batch.prompts, images):
        raise LamError(
            f"got {lams} lams for {batch.prompts} prompts x {batch.repeats} images each; "
            f"give one lam, one per prompt ({batch.prompts}) or one per image ({images})"
        )


def expand_to_rows(lams: Tensor, rows: int, batch: BatchInfo | None) -> Tensor:
    """One lam per row: repeated where the pipeline repeats prompts, tiled over the branches of guidance.

    Args:
        lams: ``[L]``.
        rows: batch size of the denoiser's input.
        batch: of the pipeline's run, or None when the denoiser is called by hand.

    Returns:
        ``[rows]``.

    Raises:
        LamError: ``rows`` is no multiple of the images, or the lams fit neither prompts nor images.
    """
    if batch is not None:
        check_count(len(lams), batch)  # lam may have changed since the run began
    if batch is not None and batch.repeats > 1 and len(lams) == batch.prompts:
        lams = lams.repeat_interleave(batch.repeats)
    if batch is not None and batch.particles > 1 and len(lams) > 1:
        lams = lams.repeat_interleave(batch.particles)
    if len(lams) == 0 or rows % len(lams):
        raise LamError(f"got {len(lams)} lams for a batch of {rows} rows; give one lam, or one per image")
    return torch.tile(lams, (rows // len(lams),))

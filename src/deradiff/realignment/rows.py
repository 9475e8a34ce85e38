"""From one lam per image to one lam per row of the denoiser's batch.

A pipeline of P prompts and n images a prompt makes P*n images, in prompt-major order, and stacks them once per branch
of guidance: rows = [branch 1: all images, branch 2: all images, ...].
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What one call of the pipeline said of its batch, prompts None where it didn't; and K particles an image."""

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


def infer_batch(call: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> BatchInfo:
    """Read prompts and images per prompt off the arguments of a pipeline's call."""
    try:
        given = inspect.signature(call).bind_partial(*args, **kwargs).arguments
    except TypeError:  # the pipeline itself will say what is wrong with its arguments
        given = dict(kwargs)
    given = {**given, **given.get("kwargs", {})}
    counts = (_count(name, given[name]) for name in _PER_PROMPT if given.get(name) is not None)
    repeats = next((int(given[name]) for name in REPEATS if given.get(name)), 1)
    return BatchInfo(prompts=next((count for count in counts if count), None), repeats=repeats)


def _count(name: str, value: object) -> int | None:
    if isinstance(value, str) or (name == "image" and isinstance(value, Tensor) and value.ndim == 3):
        return 1
    if isinstance(value, int):
        return value
    if isinstance(value, Tensor) and value.ndim > 1:
        return value.shape[0]
    return len(value) if isinstance(value, Sequence) else None


def check_count(lams: int, run: BatchInfo) -> None:
    """Refuse, before any network runs, a number of lams that fits neither prompts nor images.

    Raises:
        LamError: the counts, and which would fit.
    """
    if lams == 1 or run.prompts is None:
        return
    images = run.prompts * run.repeats
    if lams not in (run.prompts, images):
        raise LamError(
            f"got {lams} lams for {run.prompts} prompts x {run.repeats} images each; "
            f"give one lam, one per prompt ({run.prompts}) or one per image ({images})"
        )


def expand_to_rows(lams: Tensor, rows: int, run: BatchInfo | None) -> Tensor:
    """One lam per row: repeated where the pipeline repeats prompts, tiled over the branches of guidance.

    Args:
        lams: shape (L,).
        rows: batch size of the denoiser's input.
        run: the pipeline call under way, or None when the denoiser is called by hand.

    Returns:
        Shape (rows,).

    Raises:
        LamError: ``rows`` is no multiple of the images, or the lams fit neither prompts nor images.
    """
    if run is not None:
        check_count(len(lams), run)  # lam may have changed since the run began
    if run is not None and run.repeats > 1 and len(lams) == run.prompts:
        lams = lams.repeat_interleave(run.repeats)
    if run is not None and run.particles > 1 and len(lams) > 1:
        lams = lams.repeat_interleave(run.particles)
    if len(lams) == 0 or rows % len(lams):
        raise LamError(f"got {len(lams)} lams for a batch of {rows} rows; give one lam, or one per image")
    return torch.tile(lams, (rows // len(lams),))

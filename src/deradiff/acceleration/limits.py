"""Calls of a denoiser whose rows can't be taken apart."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from deradiff.anchor.inputs import batch_rows, is_position, sample_of, tensors
from deradiff.anchor.state import has_state


def unsupported_reason(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Why a call's rows can't be taken apart, or None where they can."""
    if not isinstance(sample_of(args, kwargs), Tensor):
        return "its samples are lists"
    if has_state(kwargs):
        return "it keeps a key-value cache"
    rows = batch_rows(args, kwargs)
    of_rows = [args, {name: value for name, value in kwargs.items() if not is_position(name)}]
    return "frames or layers stand before its rows" if any(_folds(t, rows) for t in tensors(of_rows)) else None


def _folds(given: Tensor, rows: int) -> bool:
    """Whether an input holds its rows folded with something else (AnimateDiff's frames, HiDream's layers)."""
    return rows > 1 and given.ndim > 2 and len(given) != rows and (len(given) % rows == 0 or given.shape[1] == rows)

"""A denoiser's inputs, given to several networks: each sees them as if it were alone."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Rebuild nested tuples, lists and dicts with ``function`` applied to every tensor; other leaves are shared."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list):
        return [map_tensors(item, function) for item in value]
    if type(value) is tuple:
        return tuple(map_tensors(item, function) for item in value)
    if type(value) is dict:
        return {key: map_tensors(item, function) for key, item in value.items()}
    return value


def fresh(value: Any) -> Any:
    """New containers around the same tensors, since networks pop residuals off the lists they are given."""
    return map_tensors(value, lambda tensor: tensor)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested containers, first given first."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def sample_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The noisy sample: every diffusers denoiser takes it first, as a tensor or as a list with one tensor a row."""
    return args[0] if args else next(iter(kwargs.values()))


def batch_rows(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Number of rows of the batch."""
    return len(sample_of(args, kwargs))


def repeat_rows(value: Any, rows: int, copies: int) -> Any:
    """Repeat whatever has one entry a row, copies side by side, so that one forward serves several models."""
    if isinstance(value, Tensor):
        return value.repeat_interleave(copies, 0) if value.ndim and value.shape[0] == rows else value
    if isinstance(value, list):
        if len(value) == rows and all(isinstance(item, Tensor) and item.shape[:1] != (rows,) for item in value):
            return [item for item in value for _ in range(copies)]
        return [repeat_rows(item, rows, copies) for item in value]
    if type(value) is tuple:
        return tuple(repeat_rows(item, rows, copies) for item in value)
    if type(value) is dict:  # positions belong to tokens, however many there are
        return {key: item if is_position(key) else repeat_rows(item, rows, copies) for key, item in value.items()}
    return value


def select_rows(value: Any, rows: int, index: Tensor) -> Any:
    """Of whatever has one entry a row, those at ``index``, in that order; the rest as it is."""
    if isinstance(value, Tensor):
        return value[index.to(value.device)] if value.ndim and value.shape[0] == rows else value
    if isinstance(value, list):
        if len(value) == rows and all(isinstance(item, Tensor) and item.shape[:1] != (rows,) for item in value):
            return [value[row] for row in index.tolist()]
        return [select_rows(item, rows, index) for item in value]
    if type(value) is tuple:
        return tuple(select_rows(item, rows, index) for item in value)
    if type(value) is dict:
        return {key: item if is_position(key) else select_rows(item, rows, index) for key, item in value.items()}
    return value


def is_position(name: str) -> bool:
    """Whether an input of this name holds positions of tokens, the same for every row."""
    return "rope" in name or "rotary" in name or name in ("img_ids", "txt_ids")


def select_model(value: Any, index: int, rows: int, copies: int) -> Any:
    """The part of an output of stacked inputs that belongs to copy ``index``."""
    if isinstance(value, Tensor):
        return value[index::copies] if value.ndim and value.shape[0] == rows * copies else value
    if isinstance(value, list):
        if len(value) == rows * copies:
            return value[index::copies]
        return [select_model(item, index, rows, copies) for item in value]
    if type(value) is tuple:
        return tuple(select_model(item, index, rows, copies) for item in value)
    if isinstance(value, Mapping):  # diffusers' output dataclasses
        parts = {key: select_model(item, index, rows, copies) for key, item in value.items()}
        return type(value)(**parts)  # pyright: ignore[reportCallIssue]
    return value

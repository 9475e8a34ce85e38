"""One call of a denoiser, not run yet: its arguments, and parts and copies of them that several networks are given.

Rows are the first dimension of the batch: images, once for each branch of classifier-free guidance.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deradiff.anchor.state import state_in

_TIMES = ("timestep", "timesteps", "t", "timestep_ratio")  # diffusers' names for it


@dataclass(frozen=True, eq=False)
class DenoiserInputs:
    """``call(*args, **kwargs)`` of a denoiser.

    Attributes:
        call: runs the denoiser itself.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def sample(self) -> Any:
        """x_t: every diffusers denoiser takes it first, as ``[rows, ...]`` or as a list with one tensor a row."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    @property
    def timestep(self) -> Any:
        """t, a number or a tensor."""
        name = next((name for name in _TIMES if name in self.kwargs), None)
        return self.args[1] if name is None else self.kwargs[name]

    @property
    def rows(self) -> int:
        """Size of the batch."""
        return len(self.sample)

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        return next(tensors([self.args, self.kwargs])).device

    def run(self) -> Any:
        """The output, on containers of its own: networks pop residuals off the lists they are given."""
        states = state_in(self.kwargs)  # written in place
        shared = {name: value for name, value in self.kwargs.items() if name not in states}
        args, kwargs = map_tree(
            _unchanged, (self.args, shared), is_leaf=lambda part: type(part) not in (list, tuple, dict)
        )
        return self.call(*args, **kwargs, **states)

    def select(self, index: Tensor) -> "DenoiserInputs":
        """The inputs of some rows, in the order of ``index``."""
        lists = isinstance(self.sample, list)
        args, kwargs = take_rows((self.args, self.kwargs), self.rows, index, lists=lists)
        return replace(self, args=args, kwargs=kwargs)

    def repeat(self, copies: int) -> "DenoiserInputs":
        """The inputs with each row repeated, copies side by side."""
        return self.select(torch.arange(self.rows).repeat_interleave(copies))

    def replace(self, **changes: Any) -> "DenoiserInputs":
        """The inputs with other keyword arguments."""
        return replace(self, kwargs={**self.kwargs, **changes})


def map_tree(
    function: Callable[..., Any],
    value: Any,
    *others: Any,
    is_leaf: Callable[[Any], bool] = lambda part: False,
    skip: Callable[[str], bool] = lambda name: False,
) -> Any:
    """Rebuild nested tuples, lists and mappings with ``function`` applied to their leaves.

    Args:
        function: of a leaf of ``value`` and what stands in its place in ``others``.
        value: tuples, lists, dicts and diffusers' outputs, nested.
        others: values of the same structure.
        is_leaf: whether ``function`` takes a container whole.
        skip: names of the entries of mappings that stay as they are in ``value``.
    """

    def at(*parts: Any) -> Any:
        return map_tree(function, *parts, is_leaf=is_leaf, skip=skip)

    if not is_leaf(value):
        if isinstance(value, list):
            return [at(*parts) for parts in zip(value, *others, strict=True)]
        if isinstance(value, tuple):
            items = [at(*parts) for parts in zip(value, *others, strict=True)]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, Mapping):
            entries = {key: value[key] if skip(key) else at(*(one[key] for one in (value, *others))) for key in value}
            kind: Any = type(value)  # of others than dict: a dataclass of diffusers, which takes its fields by name
            return entries if kind is dict else kind(**entries)
    return function(value, *others)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Rebuild nested containers with ``function`` applied to every tensor; other leaves are shared."""

    def at(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, Tensor) else leaf

    return map_tree(at, value)


def _unchanged(leaf: Any) -> Any:
    return leaf


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


def take_rows(value: Any, rows: int, index: Tensor | slice, *, lists: bool) -> Any:
    """Of whatever has one entry a row those at ``index``, in that order; anything else as it is.

    Args:
        value: inputs or outputs of a denoiser, nested.
        rows: how many entries stand where there is one a row.
        index: rows ``[n]``, or a slice of them.
        lists: whether a list of ``rows`` tensors has one a row even where each could hold all rows.
    """

    def is_row_list(part: Any) -> bool:
        tensors_only = isinstance(part, list) and len(part) == rows and all(isinstance(item, Tensor) for item in part)
        return tensors_only and (lists or all(item.shape[:1] != (rows,) for item in part))

    def take(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            if not leaf.ndim or len(leaf) != rows:
                return leaf
            return leaf[index if isinstance(index, slice) else index.to(leaf.device)]
        if is_row_list(leaf):
            return leaf[index] if isinstance(index, slice) else [leaf[row] for row in index.tolist()]
        return leaf

    return map_tree(take, value, is_leaf=is_row_list, skip=is_position)


def is_position(name: str) -> bool:
    """Whether an input of this name holds positions of tokens, the same for every row."""
    return any(part in name for part in ("rope", "rotary")) or name in ("img_ids", "txt_ids")

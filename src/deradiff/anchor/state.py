"""State that a denoiser writes and the pipeline hands back at the next call (key-value caches): one for each network.

The pipeline holds one object and may change it between calls (its mode, its position, cleared).  Model 0 works on that
object; every other model on a fork: the same structure around that model's own tensors.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

# diffusers' names for such arguments and output fields
_NAMES = ("kv_cache", "kv_caches")


def iter_tensors(value: Any, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor reachable through containers and attributes, in a fixed order."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from iter_tensors(item, seen)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from iter_tensors(item, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        yield from iter_tensors(vars(value), seen)


def state_in(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are state."""
    return {name: kwargs[name] for name in _NAMES if kwargs.get(name) is not None}


def has_state(kwargs: Mapping[str, Any]) -> bool:
    """Whether a call reads or makes state (``kv_cache_mode="extract"`` makes it without an argument to keep it in)."""
    return any(name.startswith(_NAMES[0]) and value is not None for name, value in kwargs.items())


def is_state(value: Any) -> bool:
    """Whether an entry of a denoiser's output is state: a mapping or an object, not tensors."""
    return value is not None and not isinstance(value, Tensor | list | tuple | str | int | float)


class StateCache:
    """The tensors of models 1..K for every state object seen in this run."""

    def __init__(self) -> None:
        self._forked: dict[tuple[int, int], list[Tensor]] = {}
        self._alive: list[Any] = []  # an id is only unique while its object lives

    def fork(self, state: Any, model: int) -> Any:
        """A fork of ``state`` around the tensors of ``model``; call before model 0 writes into ``state``."""
        current = list(iter_tensors(state))
        forked = self._forked.get((id(state), model))
        if forked is None or len(forked) != len(current):  # new, or cleared by the pipeline since
            forked = [tensor.clone() for tensor in current]
        return copy.deepcopy(state, {id(tensor): fork for tensor, fork in zip(current, forked, strict=True)})

    def commit(self, state: Any, model: int, fork: Any) -> None:
        """Remember what ``model`` wrote: the pipeline will hand ``state`` back."""
        self._forked[id(state), model] = list(iter_tensors(fork))
        self._alive.append(state)

    def clear(self) -> None:
        """The run ended."""
        self._forked.clear()
        self._alive.clear()

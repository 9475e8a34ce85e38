"""Prompt embeddings computed once a prompt: a run asks for the same ones for every seed, guidance and lam of it.

Each row of a text encoder's batch is encoded alone, so that an embedding, and with it an image, doesn't depend on which
prompts stand beside it.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from transformers import PreTrainedModel

from deradiff.realignment.intercept import intercept

ENTRIES = 64  # rows kept an encoder
_PLAIN = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)


@contextmanager
def cached_text_encoders(pipe: Any, entries: int = ENTRIES) -> Generator[None]:
    """Remember what the pipeline's text encoders return for each row, by the content of what they are called with.

    Args:
        pipe: its components ``text_encoder...`` of transformers are remembered; without any, nothing is done.
        entries: rows kept an encoder, the latest used ones.

    The encoders' weights must not change within.
    """
    with ExitStack() as undoing:
        for name, module in pipe.components.items():
            if name.startswith("text_encoder") and isinstance(module, PreTrainedModel):
                memory = _Memory(entries)
                undoing.callback(intercept(module, memory, owner=memory))
        yield


class _Memory:
    """Least recently used first; hands out copies, as pipelines may write into what they get."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.outputs: OrderedDict[Hashable, Any] = OrderedDict()

    def __call__(self, encode: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rows = _rows(args, kwargs)
        if rows is None:
            return encode(*args, **kwargs)
        outputs = [self._row(encode, *_row(args, kwargs, rows, row)) for row in range(rows)]
        return outputs[0] if rows == 1 else _joined(outputs)

    def _row(self, encode: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = _key(args, kwargs)
        if key not in self.outputs:
            self.outputs[key] = encode(*args, **kwargs)
            if len(self.outputs) > self.entries:
                self.outputs.popitem(last=False)
        self.outputs.move_to_end(key)
        return copy.deepcopy(self.outputs[key])


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """The rows of a call; None where it can't be taken apart: it has a state, such as a cache, or no batch."""
    leaves, _ = tree_flatten((args, kwargs))
    if not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
        return None
    rows = {leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim >= 2}
    return rows.pop() if len(rows) == 1 else None


def _row(args: tuple[Any, ...], kwargs: dict[str, Any], rows: int, row: int) -> Any:
    def pick(leaf: Any) -> Any:
        return leaf[row : row + 1] if isinstance(leaf, Tensor) and leaf.ndim >= 2 and len(leaf) == rows else leaf

    return tree_map(pick, (args, kwargs))


def _joined(outputs: list[Any]) -> Any:
    """Outputs of single rows as that of a batch."""
    flat = [tree_flatten(output) for output in outputs]
    leaves = [
        torch.cat(parts) if isinstance(parts[0], Tensor) and parts[0].ndim else parts[0]
        for parts in zip(*(leaves for leaves, _ in flat), strict=True)
    ]
    return tree_unflatten(leaves, flat[0][1])


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """What the call is made with, by content."""
    leaves, shape = tree_flatten((args, kwargs))
    return (str(shape), *((type(leaf), _content(leaf)) for leaf in leaves))


def _content(leaf: Any) -> Hashable:
    if not isinstance(leaf, Tensor):
        return leaf
    raw = leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return leaf.dtype, leaf.device, leaf.shape, raw

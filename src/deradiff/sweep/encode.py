"""Prompt embeddings encoded once: a sweep asks for the same ones for every seed and guidance of a prompt."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten
from transformers import PreTrainedModel

from deradiff.realignment.intercept import intercept

ENTRIES = 4  # calls kept an encoder: a sweep's batches come prompt by prompt, with its negative prompt beside it
_PLAIN = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)


@contextmanager
def encoding_once(pipe: Any, entries: int = ENTRIES) -> Iterator[None]:
    """Remember what the pipeline's text encoders return, by the content of what they are called with.

    Args:
        pipe: its components ``text_encoder...`` of transformers are remembered; without any, nothing is done.
        entries: calls kept an encoder, the latest used ones.

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
        key = _key(args, kwargs)
        if key is None:
            return encode(*args, **kwargs)
        if key not in self.outputs:
            self.outputs[key] = encode(*args, **kwargs)
            if len(self.outputs) > self.entries:
                self.outputs.popitem(last=False)
        self.outputs.move_to_end(key)
        return copy.deepcopy(self.outputs[key])


def _key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
    """What the call is made with, by content; None where something in it has a state of its own, such as a cache."""
    leaves, shape = tree_flatten((args, kwargs))
    if not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
        return None
    return (str(shape), *((type(leaf), _content(leaf)) for leaf in leaves))


def _content(leaf: Any) -> Hashable:
    if not isinstance(leaf, Tensor):
        return leaf
    raw = leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return leaf.dtype, leaf.device, leaf.shape, raw

"""Everything about a pipeline that realigning it may not change."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

Snapshot = dict[str, Any]


def snapshot(pipe: DiffusionPipeline, *, identity: bool = True) -> Snapshot:
    """Classes, attributes, weights and modes of a pipeline and of all networks in it.

    Without ``identity`` attributes count by their type: for a pipeline that replaces its own attention processors.
    """
    seen: Snapshot = {"pipe": (type(pipe), sorted(vars(pipe)))}
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            for path, module in part.named_modules():
                seen[f"{name}.{path}"] = _of_module(module, identity=identity)
    return seen


def _of_module(module: nn.Module, *, identity: bool) -> tuple[Any, ...]:
    attributes = {
        key: id(value) if identity and not _is_memo(value) else type(value)
        for key, value in vars(module).items()
        if key not in ("_parameters", "_buffers", "_modules") and not isinstance(value, int | float | str)
    }
    plain = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | float | str)}
    tensors = {
        key: (id(value), value.detach().clone(), value.requires_grad, value.device)
        for key, value in (*module._parameters.items(), *module._buffers.items())
        if value is not None
    }
    return (
        type(module),
        attributes,
        plain,
        list(module._modules),
        tensors,
        repr(getattr(module, "active_adapters", None)),
    )


def _is_memo(value: Any) -> bool:
    """Whether a forward keeps here what it would otherwise compute again (rotary frequencies)."""
    items = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(item, torch.Tensor) for item in items)


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """Names of what differs; tensors are compared as objects and bitwise."""
    if changed := set(before) ^ set(after):
        return sorted(changed)
    return [name for name in before if not _same(before[name], after[name])]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
    return first == second

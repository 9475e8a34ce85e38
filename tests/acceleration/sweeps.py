"""A specimen of the zoo swept over lams: rows are images x lams, equal but for lam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tests.realignment.pipelines import Subject
from torch import Tensor

import deradiff
from deradiff.acceleration import Budget, Policy
from deradiff.realignment import Handle, sweeping

LAMS = (0.0, 0.5, 1.0)
IMAGES = 2
_OF_NO_IMAGE = ("ip_adapter_image_embeds",)  # one for all


def generators(lams: Sequence[float]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(image) for image in range(IMAGES) for _ in lams]


def sweep(it: Subject, lams: Sequence[float] = LAMS, **changes: Any) -> Tensor:
    """Two images at every lam, whatever is said of lam elsewhere."""
    given = it.specimen.call(IMAGES)
    given |= {name: _at_every_lam(value, len(lams)) for name, value in given.items() if name not in _OF_NO_IMAGE}
    if "batch_size" in given:
        given["batch_size"] = IMAGES * len(lams)
    return it.run(IMAGES, generator=generators(lams), **(given | changes))


def _at_every_lam(value: Any, lams: int) -> Any:
    if isinstance(value, Tensor):
        return value.repeat_interleave(lams, 0) if value.ndim and len(value) == IMAGES else value
    if isinstance(value, list):
        whole = len(value) == IMAGES
        return [item for item in value for _ in range(lams)] if whole else [_at_every_lam(v, lams) for v in value]
    return value


def attach(it: Subject, lams: Sequence[float] = LAMS, anchors: Any = None, **settings: Any) -> Handle:
    return deradiff.realign(it.pipe, anchors or it.anchors, lam=[*lams] * IMAGES, **settings)


def through(
    handle: Handle, policy: Policy, run: Callable[[], Tensor], lams: int = len(LAMS), limit: int = 100
) -> tuple[Tensor, Budget]:
    """A run with its networks called as a policy says, and what that took."""
    budget = Budget(limit=limit)
    with sweeping(handle, lams, policy, budget):
        return run(), budget


def error(got: Tensor, exact: Tensor) -> Tensor:
    """Relative error of each row."""
    return (got - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)

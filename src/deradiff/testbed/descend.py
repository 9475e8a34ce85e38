"""The training loop that all networks of the testbed share."""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def descend(
    loss: Callable[[], Tensor],
    optimizer: Optimizer,
    lr_scheduler: LRScheduler,
    *,
    steps: int,
    report: Callable[[int, float], None],
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Take optimizer steps on ``loss`` with gradients clipped to norm 1; ``report`` receives step and loss."""
    parameters = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    for step in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        lr_scheduler.step()
        after_step()
        report(step, value.item())

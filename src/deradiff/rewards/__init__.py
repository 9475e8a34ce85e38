"""Rewards: functions that score images for their prompts, found by name.

A reward takes pixels (N, 3, H, W) in [0, 1] and N prompts, and returns N scores, higher is better.  Packages register
theirs under the entry point group ``deradiff.rewards``; any other function is named ``module:function``.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from torch import Tensor

from deradiff.errors import RewardError

Reward = Callable[[Tensor, Sequence[str]], Tensor]
GROUP = "deradiff.rewards"


def reward_names() -> list[str]:
    """Names of the registered rewards."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load_reward(name: str) -> Reward:
    """The reward of a registered name, or of ``module:function``.

    Raises:
        RewardError: no such reward; names those there are.
    """
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    module, _, function = name.partition(":")
    if not function:
        raise RewardError(f"no reward is called {name!r}; choose from {reward_names()}, or give module:function")
    try:
        reward: Any = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise RewardError(f"the reward {name!r} can't be imported: {error}") from error
    if not callable(reward):
        raise RewardError(f"the reward {name!r} is a {type(reward).__name__}; expected a function (pixels, prompts)")
    return cast(Reward, reward)

"""Rewards: functions that score images for their prompts, found by name.

A reward takes pixels (N, 3, H, W) in [0, 1] and N prompts, and returns N scores, higher is better.  Packages register
theirs under the entry point group ``deradiff.rewards``; any other function is named ``module:function``.
"""

import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import torch
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
    except Exception as error:  # a module may raise whatever it likes
        raise RewardError(f"the reward {name!r} can't be imported: {_told(error)}") from error
    if not callable(reward):
        raise RewardError(f"the reward {name!r} is a {type(reward).__name__}; expected a function (pixels, prompts)")
    return cast(Reward, reward)


@torch.no_grad()
def scores(name: str, reward: Reward, pixels: Tensor, prompts: Sequence[str]) -> list[float]:
    """What a reward says of some images.

    Args:
        name: of the reward, for errors.
        reward: the function.
        pixels: (N, 3, H, W) in [0, 1].
        prompts: N.

    Raises:
        RewardError: it raised, or didn't return one finite number an image.
    """
    try:
        given: Any = reward(pixels, prompts)
    except Exception as error:  # a reward may raise whatever it likes
        raise RewardError(f"the reward {name!r} failed on {len(prompts)} images: {_told(error)}") from error
    expected = f"{len(prompts)} images; expected a finite number each"
    try:
        values = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(f"the reward {name!r} returned a {type(given).__name__} for {expected}") from error
    if values.shape not in ((len(prompts),), (len(prompts), 1)):
        raise RewardError(f"the reward {name!r} returned numbers of shape {tuple(values.shape)} for {expected}")
    if not values.isfinite().all():
        raise RewardError(f"the reward {name!r} returned {values.flatten().tolist()} for {expected}")
    return values.flatten().tolist()


def _told(error: Exception) -> str:
    """An error of someone else's code, and where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"

"""Rewards: functions that score images for their prompts, found by name.

A reward takes pixels (N, 3, H, W) in [0, 1] and N prompts, and returns N scores, higher is better.  Packages register
theirs under the entry point group ``deradiff.rewards``: a function, or a Scorer, which is built when it is asked for.
Any other is named ``module:function``, and one behind a server by its url.
"""

import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from deradiff.errors import DeradiffError, RewardError, RewardUnavailableError, first_few
from deradiff.rewards.card import Card
from deradiff.rewards.scorer import Dtype, Scorer

Reward = Callable[[Tensor, Sequence[str]], Tensor]
GROUP = "deradiff.rewards"


def reward_names() -> list[str]:
    """Names of the registered rewards."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def reward_name(text: str) -> str:
    """The name that scores are kept under: what stands before ``=``, or the whole url."""
    return text if _is_url(text) else text.partition("=")[0]


def registered(name: str) -> Any:
    """What stands behind a registered name: a function, or a class of Scorer; no weights are looked for.

    Raises:
        RewardError: no such name, or it can't be imported.
    """
    for entry in entry_points(group=GROUP, name=name):
        return _imported(name, entry.load)
    raise RewardError(f"no reward is called {name!r}; choose from {reward_names()}, or give module:function")


def load_reward(name: str, *, device: str = "cpu", dtype: Dtype = "float32") -> Reward:
    """The reward of a registered name, of ``module:function``, or behind ``http(s)://``.

    Args:
        name: ``NAME=/folder`` lets a scorer take its files from a local folder.
        device: where a scorer's network runs.
        dtype: of its weights.

    Raises:
        RewardError: no such reward, which names those there are, or a scorer's file is missing.
    """
    if _is_url(name):
        from deradiff.rewards.remote import Remote

        return Remote(name)
    own, equals, source = name.partition("=")
    if "://" in own or (equals and not source):
        raise RewardError(
            f"can't read the reward {name!r}; expected NAME, NAME=/folder, module:function or http(s)://..."
        )
    module, colon, function = own.partition(":")
    if colon and not all(part.isidentifier() for part in module.split(".")):
        raise RewardError(
            f"can't read the reward {name!r}: expected module:function, where the module (a name, not a file) can be "
            "imported from the working folder, such as mine:redness for mine.py there"
        )
    found = _imported(own, lambda: getattr(import_module(module), function)) if colon else registered(own)
    if isinstance(found, type) and issubclass(found, Scorer):
        return found(source=source if equals else None, device=device, dtype=dtype)
    if equals:
        raise RewardError(f"the reward {own!r} is a function and takes no files; leave {equals + source!r} out")
    if not callable(found):
        raise RewardError(f"the reward {own!r} is a {type(found).__name__}; expected a function (pixels, prompts)")
    return cast(Reward, found)


def card_of(reward: Any) -> Card | None:
    """The card of a reward, or of a class of Scorer; None for a function that has no ``card``."""
    card = getattr(reward, "card", None)
    return card if isinstance(card, Card) else None


def unscorable_prompts(reward: Any, prompts: Iterable[str]) -> dict[str, str]:
    """The prompts that a reward can't score, and why, as far as it says so without images.

    Args:
        reward: one that says so has a ``check_prompt``, a function of a prompt that raises an error of ours or a
            ValueError; of any other nothing is known.
        prompts: to ask about.
    """
    check: Callable[[str], object] = getattr(reward, "check_prompt", lambda prompt: None)
    reasons = dict[str, str]()
    for prompt in prompts:
        try:
            check(prompt)
        except (DeradiffError, ValueError) as error:
            reasons[prompt] = str(error)
    return reasons


def check_prompts(name: str, reward: Any, prompts: Sequence[str]) -> None:
    """Check, before hours of sampling, that a reward can score some prompts, as far as it says so without images.

    Raises:
        RewardError: it can't; names the first few prompts and says why.
    """
    if reasons := unscorable_prompts(reward, prompts):
        raise RewardError(
            f"the reward {name} can't score {len(reasons)} of {len(prompts)} prompts ({first_few(reasons)}): "
            f"{next(iter(reasons.values())).rstrip('.')}. Leave these prompts out, or leave out {name}"
        )


@torch.no_grad()
def scores(name: str, reward: Reward, pixels: Tensor, prompts: Sequence[str]) -> list[float]:
    """What a reward says of some images.

    Args:
        name: of the reward, for errors.
        reward: the function.
        pixels: (N, 3, H, W) in [0, 1].
        prompts: N.

    Raises:
        RewardUnavailableError: it can score nothing at present.
        RewardError: it raised, or didn't return one finite number an image.
    """
    count = f"{len(prompts)} image{'s' * (len(prompts) != 1)}"
    try:
        given: Any = reward(pixels, prompts)
    except Exception as error:  # a reward may raise whatever it likes
        kind = RewardUnavailableError if isinstance(error, RewardUnavailableError) else RewardError
        raise kind(f"the reward {name!r} failed on {count}: {_told(error)}") from error
    expected = f"{count}; expected a finite number each"
    try:
        values = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(f"the reward {name!r} returned a {type(given).__name__} for {expected}") from error
    if values.shape not in ((len(prompts),), (len(prompts), 1)):
        raise RewardError(f"the reward {name!r} returned numbers of shape {tuple(values.shape)} for {expected}")
    if not values.isfinite().all():
        raise RewardError(f"the reward {name!r} returned {values.flatten().tolist()} for {expected}")
    return values.flatten().tolist()


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _imported(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # a module may raise whatever it likes
        raise RewardError(f"the reward {name!r} can't be imported: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error of someone else's code, and where it was raised."""
    if isinstance(error, ModuleNotFoundError):  # it was raised inside Python
        return f"{error}; modules are looked for in the working folder and on PYTHONPATH"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"

"""Rewards: functions that score images for their prompts, looked up by name.

A reward takes pixels ``[batch, 3, height, width]`` in [0, 1] and as many prompts, and returns scores ``[batch]``,
higher is better. Packages register rewards in the entry point group ``deradiff.rewards``: functions, or subclasses of
Scorer, which `load_reward` instantiates. Other rewards are named ``module:function``, and a reward on a server by its
url.
"""

import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from deradiff.errors import DeradiffError, RewardError, RewardUnavailableError, first_few, public_url, reason_of
from deradiff.local_modules import importable
from deradiff.rewards.card import Card
from deradiff.rewards.scorer import Dtype, Scorer
from deradiff.votes import VOTES

Reward = Callable[[Tensor, Sequence[str]], Tensor]
GROUP = "deradiff.rewards"


def reward_names() -> list[str]:
    """The names of registered rewards."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def reward_name(text: str) -> str:
    """The name under which scores are stored: the part before ``=``, or a url without what may be secret in it.

    That is its user, password, query and fragment (`deradiff.errors.public_url`): two urls that differ in these alone
    are one reward.
    """
    return public_url(text) if _is_url(text) else text.partition("=")[0]


def check_distinct(rewards: Iterable[str]) -> None:
    """Check that no two of some rewards, as `load_reward` takes them, share the name of their scores.

    Raises:
        RewardError: two do.
    """
    names = dict[str, str]()
    for reward in dict.fromkeys(rewards):
        if names.setdefault(reward_name(reward), reward) != reward:
            raise RewardError(
                f"two rewards are both called {reward_name(reward)}: files, user, password and query of a url are not "
                "part of a reward's name; leave one out, or tell them apart by the path of the url"
            )


def find_registered(name: str) -> Any:
    """The function or the subclass of Scorer that is registered under a name; weights are not located.

    Raises:
        RewardError: an unknown name, or the import fails.
    """
    for entry in entry_points(group=GROUP, name=name):
        return _import(name, entry.load)
    raise RewardError(f"no reward is called {name!r}; choose from {reward_names()}, or give module:function")


def load_reward(name: str, *, device: str = "cpu", dtype: Dtype = "float32") -> Reward:
    """Load a reward.

    Args:
        name: a registered name, ``module:function`` or ``http(s)://...``; ``NAME=/folder`` reads a scorer's files from
            a local folder.
        device: of a scorer's network.
        dtype: of a scorer's network.

    Raises:
        RewardError: an unknown reward, or a scorer's file is missing.
    """
    if _is_url(name):
        from deradiff.rewards.remote import Remote

        return Remote(name)
    base, equals, source = name.partition("=")
    if base == VOTES:
        raise RewardError("votes are people's and can't be computed; name them as the objective of recommend or report")
    if "://" in base or (equals and not source):
        raise RewardError(
            f"can't read the reward {name!r}; expected NAME, NAME=/folder, module:function or http(s)://..."
        )
    module, colon, function = base.partition(":")
    if colon and not all(part.isidentifier() for part in module.split(".")):
        raise RewardError(
            f"can't read the reward {name!r}: expected module:function, where the module (a name, not a file) can be "
            "imported from the working folder, such as mine:redness for mine.py there"
        )
    reward = _import_function(base, module, function) if colon else find_registered(base)
    if isinstance(reward, type) and issubclass(reward, Scorer):
        return reward(source=source if equals else None, device=device, dtype=dtype)
    if equals:
        raise RewardError(f"the reward {base!r} is a function and takes no files; leave {equals + source!r} out")
    if not callable(reward):
        raise RewardError(f"the reward {base!r} is a {type(reward).__name__}; expected a function (pixels, prompts)")
    return cast(Reward, reward)


def card_of(reward: Any) -> Card | None:
    """The card of a reward or of a subclass of Scorer; None if it has no ``card``."""
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
def compute_scores(name: str, reward: Reward, pixels: Tensor, prompts: Sequence[str]) -> list[float]:
    """Compute the scores of images, one for each, and check them.

    Args:
        name: of the reward, for error messages.
        reward: the function.
        pixels: ``[batch, 3, height, width]`` in [0, 1].
        prompts: one for each image.

    Raises:
        RewardUnavailableError: it can score nothing at present.
        RewardError: the reward raised, or didn't return one finite number for each image.
    """
    count = f"{len(prompts)} image{'s' * (len(prompts) != 1)}"
    try:
        output: Any = reward(pixels, prompts)
    except KeyboardInterrupt:  # Ctrl-C
        raise
    except BaseException as error:  # rewards may raise anything, SystemExit included
        error_type = RewardUnavailableError if isinstance(error, RewardUnavailableError) else RewardError
        raise error_type(f"the reward {name!r} failed on {count}: {_describe_error(error)}") from error
    expected = f"{count}; expected a finite number each"
    try:
        values = _as_numbers(output)
    except Exception as error:  # such as of arrays of other libraries
        raise RewardError(
            f"the reward {name!r} returned a {type(output).__name__} for {expected} ({reason_of(error)})"
        ) from error
    if values.shape not in ((len(prompts),), (len(prompts), 1)):
        raise RewardError(f"the reward {name!r} returned numbers of shape {tuple(values.shape)} for {expected}")
    if not values.isfinite().all():
        raise RewardError(f"the reward {name!r} returned {values.flatten().tolist()} for {expected}")
    return values.flatten().tolist()


def _as_numbers(output: Any) -> Tensor:
    """Numbers as float64: of tensors, arrays, or lists of these and of plain numbers; truth values count 0 or 1."""
    if isinstance(output, list | tuple):
        output = [value.item() if hasattr(value, "item") else value for value in output]
    values = torch.as_tensor(output)
    if values.is_complex() or values.layout != torch.strided:
        raise TypeError("complex numbers" if values.is_complex() else "a sparse tensor")
    return values.detach().to("cpu", torch.float64)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _import_function(reference: str, module: str, function: str) -> Any:
    with importable(reference):
        return _import(reference, lambda: getattr(import_module(module), function))


def _import(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except KeyboardInterrupt:  # Ctrl-C
        raise
    except BaseException as error:  # modules may raise anything, SystemExit included
        raise RewardError(f"the reward {name!r} can't be imported: {_describe_error(error)}") from error


def _describe_error(error: BaseException) -> str:
    """An error of foreign code, and where it was raised."""
    if isinstance(error, ModuleNotFoundError):  # it was raised inside Python
        return f"{error}; modules are looked for in the working folder and on PYTHONPATH"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    try:
        message = str(error)
    except Exception as why:  # noqa: BLE001  (its __str__ is foreign code too)
        message = f"without a message, as its __str__ raises {type(why).__name__}"
    return f"{type(error).__name__}: {message} ({Path(frame.filename).name}, line {frame.lineno})"

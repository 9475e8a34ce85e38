"""Aligned models, described by their cards."""

import os
from collections.abc import Sequence
from math import isclose, nan
from typing import Any

from pydantic import Field

from deradiff.align.convention import get_convention
from deradiff.anchor.source import card_of
from deradiff.errors import AnchorError, ConfigError
from deradiff.validation import ValidatedModel

_ROUNDING = 1e-6


class Aligned(ValidatedModel):
    """An aligned model, with the entries of its card.

    Attributes:
        name: as the user names it.
        beta: KL strength at which it was aligned, positive.
        seed: of its training.
        convention: of beta.
    """

    name: str
    beta: float = Field(gt=0, allow_inf_nan=False)
    seed: int
    convention: dict[str, Any]

    @classmethod
    def read(cls, name: str, path: str) -> "Aligned":
        """Read the card of an aligned model in a folder or file.

        Raises:
            AnchorError: the path doesn't exist, or the card's beta, seed or beta_convention is missing or invalid.
        """
        if not os.path.exists(path):
            raise AnchorError(f"no folder or file {name}; expected an aligned model on this machine")
        card = card_of(path)
        if missing := [key for key in ("beta", "seed", "beta_convention") if key not in card]:
            raise AnchorError(
                f"the card of {name} lacks {', '.join(missing)}; expected a local model with these entries in a "
                "deradiff.json beside it, or in the LoRA's metadata"
            )
        try:
            return cls(name=name, beta=card["beta"], seed=card["seed"], convention=card["beta_convention"])
        except ConfigError as error:
            raise AnchorError(f"the card of {name} can't be used: {error}") from error

    def __str__(self) -> str:
        return f"beta{self.beta:g}-seed{self.seed}"


def check_conventions(models: Sequence[Aligned]) -> None:
    """Check that the betas of models follow one convention.

    Raises:
        ConfigError: they follow several.
    """
    first = models[0]
    for model in models:
        keys = first.convention.keys() | model.convention.keys()
        if differing := [
            key for key in sorted(keys) if not _is_equal(first.convention.get(key), model.convention.get(key))
        ]:
            values = "; ".join(
                f"{key}: {first.convention.get(key)!r}, {model.convention.get(key)!r}" for key in differing
            )
            raise ConfigError(
                f"beta doesn't mean the same in {first.name} and {model.name} ({values}); compare models aligned under "
                "one convention"
            )


def check_units(model: Aligned, scheduler: Any) -> None:
    """Check that a model's beta is in the units of the reward, as the optimum requires.

    Raises:
        ConfigError: it is not.
    """
    actual, expected = model.convention, get_convention("kl", scheduler).card()
    weight = actual.get("factor", nan) * actual.get("timestep_weight", 1.0)
    equal_weight = isclose(weight, expected["factor"] * expected["timestep_weight"], rel_tol=_ROUNDING)
    if actual.get("reduction") != expected["reduction"] or not equal_weight:
        raise ConfigError(
            f"the optimum needs betas in units of the reward, as the convention kl has them ({expected}); "
            f"{model.name} has {actual}; leave the optimum out, or align with --convention kl"
        )


def _is_equal(one: Any, other: Any) -> bool:
    """Equality up to rounding: the weight of ``kl`` is a sum, whose last digits depend on the processor."""
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return isclose(one, other, rel_tol=_ROUNDING) if numbers else one == other

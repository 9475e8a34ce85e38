"""Aligned models by what their cards say."""

from collections.abc import Sequence
from math import isclose, nan
from pathlib import Path
from typing import Any

from pydantic import Field

from deradiff.align.convention import convention
from deradiff.anchor.source import card_of
from deradiff.errors import AnchorError, ConfigError
from deradiff.validation import ValidatedModel

_ROUNDING = 1e-6


class Aligned(ValidatedModel):
    """An aligned model and what its card says of it.

    Attributes:
        name: as the user gives it.
        beta: KL strength it was aligned at.
        seed: of its training.
        convention: what beta means.
    """

    name: str
    beta: float = Field(gt=0, allow_inf_nan=False)
    seed: int
    convention: dict[str, Any]

    @classmethod
    def read(cls, name: str, path: str) -> "Aligned":
        """The aligned model in a folder or file.

        Raises:
            AnchorError: nothing there, or a card whose beta, seed or beta_convention is missing or wrong.
        """
        if not Path(path).exists():
            raise AnchorError(f"no folder or file {name}; expected an aligned model on this machine")
        card = card_of(path)
        if lacking := [key for key in ("beta", "seed", "beta_convention") if key not in card]:
            raise AnchorError(
                f"the card of {name} lacks {', '.join(lacking)}; expected a local model with a deradiff.json beside "
                "it, or a LoRA with that in its metadata, which says beta, seed and beta_convention"
            )
        try:
            return cls(name=name, beta=card["beta"], seed=card["seed"], convention=card["beta_convention"])
        except ConfigError as error:
            raise AnchorError(f"the card of {name} can't be used: {error}") from error

    def __str__(self) -> str:
        return f"beta{self.beta:g}-seed{self.seed}"


def check_conventions(models: Sequence[Aligned]) -> None:
    """Refuse models whose betas don't mean the same.

    Raises:
        ConfigError: they don't.
    """
    first = models[0]
    for model in models:
        keys = first.convention.keys() | model.convention.keys()
        if apart := [key for key in sorted(keys) if not _alike(first.convention.get(key), model.convention.get(key))]:
            told = "; ".join(f"{key}: {first.convention.get(key)!r}, {model.convention.get(key)!r}" for key in apart)
            raise ConfigError(
                f"beta doesn't mean the same in {first.name} and {model.name} ({told}); compare models aligned under "
                "one convention"
            )


def check_units(model: Aligned, scheduler: Any) -> None:
    """Refuse a model whose beta isn't in units of the reward, as that of an optimum must be.

    Raises:
        ConfigError: it isn't.
    """
    own, expected = model.convention, convention("kl", scheduler).card()
    weight = own.get("factor", nan) * own.get("timestep_weight", 1.0)
    alike = isclose(weight, expected["factor"] * expected["timestep_weight"], rel_tol=_ROUNDING)
    if own.get("reduction") != expected["reduction"] or not alike:
        raise ConfigError(
            f"the optimum needs betas in units of the reward, as the convention kl has them ({expected}); "
            f"{model.name} has {own}; leave the optimum out, or align with --convention kl"
        )


def _alike(one: Any, other: Any) -> bool:
    """Equal, or numbers that differ by rounding: the weight of ``kl`` is a sum, whose last digit processors round."""
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return isclose(one, other, rel_tol=_ROUNDING) if numbers else one == other

"""The lams in force: validated once, one tuple of values for each anchor."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from deradiff.errors import LamError

_LARGEST = 3.4028234663852886e38  # of float32

LamRow = float | Sequence[float] | NDArray[Any] | Tensor
LamLike = LamRow | Mapping[str, LamRow]


@dataclass(frozen=True)
class Lams:
    """Values by anchor, in the anchors' order: one for all images, or one per image or prompt."""

    values: tuple[tuple[float, ...], ...]

    @classmethod
    def parse(cls, lam: Any, anchors: Sequence[str]) -> "Lams":
        """Validate lams as the user gives them.

        Args:
            lam: a float or a sequence with one per image; for several anchors a mapping from their names.
            anchors: the anchors' names; a lone anchor takes its lam without a name.

        Raises:
            LamError: not finite, not a number, none at all, or other names than the anchors'.
        """
        if isinstance(lam, Mapping):
            if set(lam) != set(anchors):
                raise LamError(f"got lams for {sorted(lam)}, expected one for each anchor {sorted(anchors)}")
            values = tuple(_row(lam[name]) for name in anchors)
        elif len(anchors) > 1:
            example = ", ".join(f"{name!r}: 0.5" for name in anchors)
            raise LamError(f"got lam = {lam!r} for {len(anchors)} anchors; give a mapping, lam={{{example}}}")
        else:
            values = (_row(lam),)
        counts = {len(row) for row in values} - {1}
        if len(counts) > 1:
            raise LamError(
                f"got different numbers of lams {sorted(counts)} for the anchors; give each one or the same number"
            )
        return cls(values)

    @property
    def count(self) -> int:
        """How many images or prompts the lams tell apart; 1 where they don't."""
        return max(len(row) for row in self.values)

    def by_anchor(self, anchors: Sequence[str]) -> Any:
        """The lams in the form the user gives them."""
        rows = [row[0] if len(row) == 1 else list(row) for row in self.values]
        return rows[0] if len(anchors) == 1 else dict(zip(anchors, rows, strict=True))


def _row(lams: Any) -> tuple[float, ...]:
    if isinstance(lams, Mapping):
        raise LamError(f"lam must be a number or a sequence with one number per image, got {lams!r}")
    items = (
        list(lams) if isinstance(lams, Iterable) and getattr(lams, "ndim", 1) and not isinstance(lams, str) else [lams]
    )
    if not items:
        raise LamError("got an empty sequence of lams; give one lam, or one per image")
    return tuple(_number(item) for item in items)


def _number(item: Any) -> float:
    try:
        value = float(item)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise LamError(f"lam must be a number, or one number per image, got {item!r}") from error
    if not math.isfinite(value):
        raise LamError(f"lam must be finite, got {value}; 0 is the reference, 1 the anchor, above 1 extrapolates")
    if abs(value) > _LARGEST:
        raise LamError(f"lam is {value:g}, more than float32 holds; 0 is the reference, 1 the anchor")
    return value

"""What a comparison found: one table for each anchor, scheduler and reward, and its headline."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deradiff.analysis.messages import FEW_PROMPTS
from deradiff.compare.optimum import Optimum
from deradiff.compare.statistics import NULL, Row, Spread

DERADIFF, WEIGHTS, ANCHOR, REFERENCE = "deradiff", "weights", "anchor", "reference"


_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, kw_only=True)
class Table:
    """One anchor under one scheduler and reward.

    Attributes:
        anchor: its name.
        anchor_beta: KL strength it was aligned at.
        scheduler: diffusers class name; None is the pipeline's own.
        reward: its name.
        prompts: how many.
        betas: of the models from scratch, ascending.
        scratch_means: for each beta the mean score of each training seed's model.
        spread: of the means from scratch over betas.
        seed_noise: in the units of the reward; None where no beta has two training seeds.
        image_distances: arm -> by beta, the RMS distance in [0, 1] of its images to those from scratch.
        seed_image_distance: the same between two training seeds at one beta, mean over betas; None as ``seed_noise``.
        own_model: whether the anchor is itself among the models from scratch.
        rows: each arm at each beta.
        optimum: every arm against the optimum of the first reward; None where no samples were drawn for it.
    """

    anchor: str
    anchor_beta: float
    scheduler: str | None
    reward: str
    prompts: int
    betas: tuple[float, ...]
    scratch_means: tuple[tuple[float, ...], ...]
    spread: Spread
    seed_noise: float | None
    image_distances: dict[str, tuple[float, ...]]
    seed_image_distance: float | None
    own_model: bool
    rows: tuple[Row, ...]
    optimum: Optimum | None = None

    @property
    def title(self) -> str:
        """What tells it from other tables."""
        anchor = f"anchor {self.anchor} (beta {self.anchor_beta:g})"
        return f"{self.reward} · {anchor} · {self.scheduler or 'own scheduler'}"

    def of(self, arm: str) -> list[Row]:
        """An arm's rows, by beta."""
        return [row for row in self.rows if row.arm == arm]

    def share(self, arm: str, *, extrapolated: bool = False, same_seed: bool = False) -> float | None:
        """An arm's largest absolute error as a share of the spread, over betas in [anchor's, 8 x], or from a quarter.

        Against the mean over training seeds, or the models of the anchor's own. None where no beta lies there, or
        there is no spread.
        """
        low, high = self.anchor_beta / (4 if extrapolated else 1), 8 * self.anchor_beta
        inside = [row for row in self.of(arm) if low / _ROUNDING <= row.beta <= high * _ROUNDING]
        shares = [row.same_seed_share if same_seed else row.share_of_spread for row in inside]
        return max((abs(share) for share in shares if share is not None), default=None)

    def percent(self, arm: str) -> float | None:
        """An arm's mean error over betas in % of the mean from scratch, as arXiv 2601.20198 tells it."""
        percents = [row.percent_of_mean for row in self.of(arm) if row.percent_of_mean is not None]
        return sum(percents) / len(percents) if percents else None

    @property
    def headline(self) -> dict[str, float | None]:
        """The figures by which an emulation is judged, as shares of the spread."""
        size = self.spread.size
        return {
            "share_of_spread_deradiff": self.share(DERADIFF),
            "share_of_spread_deradiff_extrapolated": self.share(DERADIFF, extrapolated=True),
            "share_of_spread_weights": self.share(WEIGHTS),
            "share_of_spread_null": self.share(NULL),
            "seed_noise_share": self.seed_noise / size if self.seed_noise is not None and size else None,
            "share_of_spread_deradiff_same_seed": self.share(DERADIFF, same_seed=True),
            "share_of_spread_deradiff_same_seed_extrapolated": self.share(DERADIFF, extrapolated=True, same_seed=True),
        }

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before trusting the table."""
        return list(self._warnings())

    def _warnings(self) -> Iterator[str]:
        if not self.spread.significant:
            yield (
                f"The spread between betas, {self.spread.size:.3g}, is not significantly above 0: too small for these "
                "images to judge an emulation by. Compare more prompts or seeds, or betas further apart."
            )
        if self.prompts < FEW_PROMPTS:
            yield f"Only {self.prompts} prompts: the intervals are wide, and other prompts may behave differently."
        if self.seed_noise is None:
            yield "Seed noise is unknown: no beta has models of two training seeds."
        if self.own_model:
            yield (
                f"The anchor is among the models from scratch at beta = {self.anchor_beta:g}, where its error is "
                "therefore less than that of another training seed."
            )
        if self.optimum and self.optimum.warning:
            yield self.optimum.warning
        null, own = self.percent(NULL), self.percent(DERADIFF)
        if null is not None and own is not None:
            yield (
                f"In % of the mean, DeRaDiff errs {own:.3g} %, the null predictor, which ignores beta, {null:.3g} %: "
                "where beta moves a mean by little of its size, all arms look good in this measure. Judge by the share "
                "of the spread."
            )


def as_json(tables: Sequence[Table]) -> dict[str, Any]:
    """The headline of the first table at the top, then every table's, and ``rows``, one an arm and beta of a table."""
    return {
        **tables[0].headline,
        "betas": tables[0].betas,
        "tables": [_summary(t) for t in tables],
        "rows": _rows(tables),
    }


def _summary(table: Table) -> dict[str, Any]:
    described = asdict(table)
    del described["rows"], described["image_distances"]
    percents = {arm: table.percent(arm) for arm in dict.fromkeys(row.arm for row in table.rows)}
    return {**described, **table.headline, "mean_percent_of_mean": percents, "warnings": table.warnings}


def _rows(tables: Sequence[Table]) -> list[dict[str, Any]]:
    return [
        {
            "anchor": table.anchor,
            "scheduler": table.scheduler,
            "reward": table.reward,
            **asdict(row),
            "image_distance": dict(zip(table.betas, table.image_distances.get(row.arm, ()), strict=False)).get(
                row.beta
            ),
        }
        for table in tables
        for row in table.rows
    ]

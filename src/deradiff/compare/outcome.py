"""The outcome of a comparison: one table for each anchor, scheduler and reward, and its headline."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deradiff.analysis.messages import FEW_PROMPTS
from deradiff.compare.optimum import Optimum
from deradiff.compare.statistics import NULL, Row, Spread

DERADIFF, WEIGHTS, ANCHOR, REFERENCE = "deradiff", "weights", "anchor", "reference"

_ROUNDING = 1 + 1e-9
_JSON_NAMES = {"retrained_mean": "scratch_mean", "retrained_means": "scratch_means"}  # names in results.json


@dataclass(frozen=True, kw_only=True)
class Table:
    """One anchor under one scheduler and reward.

    Attributes:
        anchor: its name.
        anchor_beta: KL strength at which it was aligned.
        scheduler: diffusers class name; None is the pipeline's own.
        reward: its name.
        prompts: number of prompts.
        betas: of the retrained models, ascending.
        retrained_means: for each beta the mean score of each training seed's model.
        spread: of the retrained means over betas.
        seed_noise: in the units of the reward; None if no beta has two training seeds.
        image_distances: arm -> by beta, the RMS distance in [0, 1] of its images to the retrained models' images.
        seed_image_distance: distance between two training seeds at one beta, mean over betas; None as ``seed_noise``.
        own_model: whether the anchor is one of the retrained models.
        rows: each arm at each beta.
        optimum: each arm against the optimum of the first reward; None without samples for it.
    """

    anchor: str
    anchor_beta: float
    scheduler: str | None
    reward: str
    prompts: int
    betas: tuple[float, ...]
    retrained_means: tuple[tuple[float, ...], ...]
    spread: Spread
    seed_noise: float | None
    image_distances: dict[str, tuple[float, ...]]
    seed_image_distance: float | None
    own_model: bool
    rows: tuple[Row, ...]
    optimum: Optimum | None = None

    @property
    def title(self) -> str:
        """Reward, anchor and scheduler, which identify the table."""
        anchor = f"anchor {self.anchor} (beta {self.anchor_beta:g})"
        return f"{self.reward} · {anchor} · {self.scheduler or 'own scheduler'}"

    def arm_rows(self, arm: str) -> list[Row]:
        """The rows of an arm, by beta."""
        return [row for row in self.rows if row.arm == arm]

    def share(self, arm: str, *, extrapolated: bool = False, same_seed: bool = False) -> float | None:
        """An arm's largest absolute error as a share of the spread.

        Args:
            arm: its name.
            extrapolated: take betas from a quarter of the anchor's to 8 times it, instead of from the anchor's.
            same_seed: compare with the models of the anchor's training seed, instead of the mean over seeds.

        Returns:
            None if no beta lies in the range or the spread is 0.
        """
        low, high = self.anchor_beta / (4 if extrapolated else 1), 8 * self.anchor_beta
        inside = [row for row in self.arm_rows(arm) if low / _ROUNDING <= row.beta <= high * _ROUNDING]
        shares = [row.same_seed_share if same_seed else row.share_of_spread for row in inside]
        return max((abs(share) for share in shares if share is not None), default=None)

    def percent(self, arm: str) -> float | None:
        """An arm's mean error over betas in % of the retrained mean (arXiv 2601.20198); None if undefined."""
        percents = [row.percent_of_mean for row in self.arm_rows(arm) if row.percent_of_mean is not None]
        return sum(percents) / len(percents) if percents else None

    @property
    def headline(self) -> dict[str, float | None]:
        """The main errors as shares of the spread."""
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
        """Caveats about the table."""
        return list(self._warnings())

    def _warnings(self) -> Iterator[str]:
        if not self.spread.significant:
            yield (
                f"The spread between betas, {self.spread.size:.3g}, is not significantly above 0, so that these "
                "images can't judge an emulation. Compare more prompts or seeds, or betas further apart."
            )
        if self.prompts < FEW_PROMPTS:
            yield f"Only {self.prompts} prompts: the intervals are wide, and other prompts may behave differently."
        if self.seed_noise is None:
            yield "Seed noise is unknown: no beta has models of two training seeds."
        if self.own_model:
            yield (
                f"The anchor is one of the retrained models at beta = {self.anchor_beta:g}, so that its error there is "
                "smaller than that of another training seed."
            )
        if self.optimum and self.optimum.warning:
            yield self.optimum.warning
        null, deradiff = self.percent(NULL), self.percent(DERADIFF)
        if null is not None and deradiff is not None:
            yield (
                f"The error in % of the mean is {deradiff:.3g}% for DeRaDiff and {null:.3g}% for the null predictor, "
                "which ignores beta. All arms look good in this measure where beta changes a mean by a small fraction "
                "of its size. Judge by the share of the spread."
            )


def as_json(tables: Sequence[Table]) -> dict[str, Any]:
    """The content of results.json: the first table's headline, all tables, and a row for each arm and beta."""
    return {
        **tables[0].headline,
        "betas": tables[0].betas,
        "tables": [_summarize(t) for t in tables],
        "rows": _rows(tables),
    }


def _summarize(table: Table) -> dict[str, Any]:
    fields = _as_dict(table)
    del fields["rows"], fields["image_distances"]
    percents = {arm: table.percent(arm) for arm in dict.fromkeys(row.arm for row in table.rows)}
    return {**fields, **table.headline, "mean_percent_of_mean": percents, "warnings": table.warnings}


def _rows(tables: Sequence[Table]) -> list[dict[str, Any]]:
    return [
        {
            "anchor": table.anchor,
            "scheduler": table.scheduler,
            "reward": table.reward,
            **_as_dict(row),
            "image_distance": dict(zip(table.betas, table.image_distances.get(row.arm, ()), strict=False)).get(
                row.beta
            ),
        }
        for table in tables
        for row in table.rows
    ]


def _as_dict(item: Table | Row) -> dict[str, Any]:
    return {_JSON_NAMES.get(name, name): value for name, value in asdict(item).items()}

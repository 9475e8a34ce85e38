"""A sweep's scores as one paired table: prompts x seeds x lams.

Everything that chooses or draws (``analysis``, ``report``) reads this table and knows no model. Build one by hand to
ask about scores from anywhere::

    deradiff.Results(prompts=["a cat", ...], seeds=[0, 1], lams=[0, 0.5, 1], scores={"hps": array})
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deradiff.errors import ResultsError, first_few

Direction = Literal["higher", "steady", "none"]


@dataclass(frozen=True, kw_only=True)
class RewardInfo:
    """What is known of a reward's scale; recorded from its card when a run is scored.

    Attributes:
        direction: ``higher`` is better, ``steady`` (neither up nor down is better) or ``none`` (it says how far an
            image moved, not whether that is good).
        margin: the smallest change that matters, above 0, in the reward's units, or as a share of its mean at lam = 0;
            None where nobody has said.
        relative: whether the margin is a share.
        margin_source: where the margin comes from.
        floor: the lowest score possible, where it is near enough to real scores to bound what a prompt can lose; else
            None.
    """

    direction: Direction = "higher"
    margin: float | None = None
    relative: bool = False
    margin_source: str = ""
    floor: float | None = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """Scores of the images of a run; P prompts, S seeds, L lams. Sequences and nested lists are converted.

    Attributes:
        prompts: P prompts.
        seeds: S seeds; the images of one (prompt, seed) share all noise across lams, so they are pairs.
        lams: L mixing weights, ascending; 0 is the reference, 1 the anchor.
        scores: reward name -> array (P, S, L), higher is better unless ``rewards`` says otherwise; nan where there is
            no image, or no score of it.
        images: image files, array of paths (P, S, L), empty where there is none; all empty by default.
        unscored: reward name -> how many images have no score of it yet; such a reward is not among ``scores``.
        missing: how many images were asked for and are not there yet.
        path_kl: path KL to the reference in nats, array (P, S, L), or None where it was not recorded.
        paths: other trajectory statistics (`deradiff.trajectory.Paths`), name -> array (P, S, L), nan where unknown.
        rewards: reward name -> what is known of its scale; `RewardInfo`'s defaults where a name is missing.
        anchor_beta: KL strength the anchor was aligned at, or None where its card does not say.
        details: what a reader needs to repeat the run (model, anchor, scheduler, steps, guidance, ...).

    Raises:
        ResultsError: an array of another shape, lams that do not ascend, a score that is infinite, or a reward without
            any score.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    lams: Sequence[float]
    scores: Mapping[str, NDArray[np.float64]]
    images: Any = None  # NDArray[np.object_] once made
    unscored: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0
    path_kl: NDArray[np.float64] | None = None
    paths: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    rewards: Mapping[str, RewardInfo] = field(default_factory=dict)
    anchor_beta: float | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        object.__setattr__(self, "lams", tuple(float(lam) for lam in self.lams))
        if 0 in self.shape:
            counts = "{} prompts x {} seeds x {} lams".format(*self.shape)
            raise ResultsError(f"no images: {counts}; run a sweep first")
        if not all(a < b for a, b in zip(self.lams, self.lams[1:], strict=False)) or not np.isfinite(self.lams).all():
            raise ResultsError(f"lams must ascend without repeats, got {self.lams}")
        object.__setattr__(self, "scores", {name: self._table(name, table) for name, table in self.scores.items()})
        object.__setattr__(self, "paths", {name: self._table(name, table) for name, table in self.paths.items()})
        if self.path_kl is not None:
            object.__setattr__(self, "path_kl", self._table("path_kl", self.path_kl))
        images = np.full(self.shape, "", dtype=object) if self.images is None else np.asarray(self.images, dtype=object)
        object.__setattr__(self, "images", self._shaped("images", images))
        for name, table in self.scores.items():
            if bad := int(np.sum(np.isinf(table))):
                raise ResultsError(f"{name}: {bad} of {table.size} scores are infinite; expected finite numbers")
            if np.isnan(table).all():
                raise ResultsError(f"{name}: all {table.size} scores are nan; expected numbers, nan for gaps alone")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, S, L)."""
        return len(self.prompts), len(self.seeds), len(self.lams)

    @property
    def zero(self) -> int:
        """Index of lam = 0; raises ResultsError where it is missing."""
        if 0 not in self.lams:
            swept = ", ".join(f"{lam:g}" for lam in self.lams)
            raise ResultsError(f"the reference, lam = 0, is not among the lams {swept}; sweep it with them")
        return self.lams.index(0)

    def info(self, reward: str) -> RewardInfo:
        """What is known of a reward's scale."""
        return self.rewards.get(reward, RewardInfo())

    def scored(self, reward: str) -> NDArray[np.float64]:
        """The scores of one reward, (P, S, L).

        Raises:
            ResultsError: an unknown reward, or one that some images have no score of yet.
        """
        if reward in self.unscored:
            raise ResultsError(self.missing_scores_message(reward))
        if reward not in self.scores:
            there = ", ".join([*self.scores, *self.unscored]) or "none"
            raise ResultsError(f"no reward {reward!r} here; there are: {there}; choose one, or run deradiff score")
        return self.scores[reward]

    def missing_scores_message(self, reward: str) -> str:
        """What to say of a reward that some images have no score of yet."""
        count = np.count_nonzero(self.images != "") or np.prod(self.shape)  # a table from elsewhere names no files
        missing = f"{self.unscored[reward]} of {count} images have no score of {reward}"
        return f"{missing}; score the run again: deradiff score RUN --rewards {reward}"

    def unscored_prompts(self, reward: str) -> list[str]:
        """The prompts some of whose images have no score of a reward, such as those that it failed on.

        Raises:
            ResultsError: as `scored`.
        """
        gaps = self._gaps(reward).any(axis=(1, 2))
        return [self.prompts[index] for index in map(int, np.flatnonzero(gaps))]

    def unscored_prompts_messages(self) -> list[str]:
        """What to say of rewards that some prompts have gaps in: which prompts, and how many images."""
        messages = []
        for name in self.scores:
            if prompts := self.unscored_prompts(name):
                images = int(self._gaps(name).sum())
                messages.append(
                    f"{images} image{'s' * (images != 1)} of {len(prompts)} of {len(self.prompts)} prompts "
                    f"({first_few(prompts)}), which have no score of {name}"
                )
        return messages

    def image(self, prompt: int, seed: int, lam: int) -> Path:
        """The file of one image, by its indices; raises ResultsError where there is none."""
        if not self.images[prompt, seed, lam]:
            raise ResultsError(f"no image file of prompt {prompt}, seed {seed}, lam {self.lams[lam]:g} is known")
        return Path(self.images[prompt, seed, lam])

    def select(self, prompts: Iterable[int], lams: Iterable[int]) -> "Results":
        """The results of some prompts and lams, by their indices."""
        rows, columns = list(prompts), list(lams)

        def cut(table: NDArray[Any]) -> NDArray[Any]:
            return table[rows][:, :, columns]

        return Results(
            prompts=[self.prompts[row] for row in rows],
            seeds=self.seeds,
            lams=[self.lams[column] for column in columns],
            scores={name: cut(table) for name, table in self.scores.items()},
            images=cut(self.images),
            unscored=self.unscored,
            missing=self.missing,
            path_kl=None if self.path_kl is None else cut(self.path_kl),
            paths={name: cut(table) for name, table in self.paths.items()},
            rewards=self.rewards,
            anchor_beta=self.anchor_beta,
            details=self.details,
        )

    def on_axes(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        lams: Sequence[float],
        rewards: Iterable[str] | None = None,
    ) -> "Results":
        """The table on other axes: gaps where it has nothing; what isn't on these axes is left out.

        Args:
            prompts: each once.
            seeds: each once.
            lams: ascending.
            rewards: to keep; all that are scored by default.

        Raises:
            ResultsError: a reward that isn't there, or that has no score on these axes.
        """
        pairs = [_shared(self.prompts, prompts), _shared(self.seeds, seeds), _shared(self.lams, lams)]
        source, target = (np.ix_(*places) for places in zip(*pairs, strict=True))

        def moved(table: NDArray[Any], empty: object) -> NDArray[Any]:
            new = np.full((len(prompts), len(seeds), len(lams)), empty, dtype=table.dtype)
            new[target] = table[source]
            return new

        return replace(
            self,
            prompts=prompts,
            seeds=seeds,
            lams=lams,
            scores={name: moved(self.scored(name), np.nan) for name in (self.scores if rewards is None else rewards)},
            images=moved(self.images, ""),
            unscored={},
            path_kl=None if self.path_kl is None else moved(self.path_kl, np.nan),
            paths={name: moved(table, np.nan) for name, table in self.paths.items()},
        )

    def _gaps(self, reward: str) -> NDArray[np.bool_]:
        """Which images have no score of a reward, (P, S, L)."""
        return np.array(self.images != "", bool) & np.isnan(self.scored(reward))

    def _table(self, name: str, values: ArrayLike) -> NDArray[np.float64]:
        try:
            return self._shaped(name, np.asarray(values, dtype=float))
        except (TypeError, ValueError) as error:
            if isinstance(error, ResultsError):
                raise
            raise ResultsError(f"{name}: expected an array of numbers {self.shape} ({error})") from error

    def _shaped(self, name: str, table: NDArray[Any]) -> NDArray[Any]:
        if table.shape != self.shape:
            raise ResultsError(f"{name}: expected one value per prompt, seed and lam {self.shape}, got {table.shape}")
        return table


def _shared(old: Sequence[Any], new: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Where the values that two axes share stand on each."""
    places = {value: at for at, value in enumerate(old)}
    shared = [(places[value], at) for at, value in enumerate(new) if value in places]
    return [at for at, _ in shared], [at for _, at in shared]

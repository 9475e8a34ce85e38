"""The scores of a run as one paired table: prompts x seeds x lams.

``analysis`` and ``report`` read this table and know no model. To analyse scores from elsewhere, build one by hand::

    deradiff.Results(prompts=["a cat", ...], seeds=[0, 1], lams=[0, 0.5, 1], scores={"hps": array})
"""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deradiff.errors import ResultsError, first_few
from deradiff.votes import VOTES, Vote

Direction = Literal["higher", "steady", "none"]


@dataclass(frozen=True, kw_only=True)
class RewardInfo:
    """What is known of a reward's scale; recorded from its card when a run is scored.

    Attributes:
        direction: ``higher`` is better, ``steady`` (neither up nor down is better) or ``none`` (it says how far an
            image moved, not whether that is good).
        margin: the smallest change that matters, above 0, in the reward's units, or as a share of its mean at lam = 0;
            None where it is unknown.
        relative: whether the margin is a share.
        margin_source: where the margin comes from.
        floor: the lowest score possible, where it is near enough to real scores to bound what a prompt can lose; else
            None.

    Raises:
        ResultsError: another direction, or a margin or floor that can't be one.
    """

    direction: Direction = "higher"
    margin: float | None = None
    relative: bool = False
    margin_source: str = ""
    floor: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in get_args(Direction):
            raise ResultsError(f"direction: expected one of {', '.join(get_args(Direction))}, got {self.direction!r}")
        if self.margin is not None and not (np.isfinite(self.margin) and self.margin > 0):
            raise ResultsError(f"margin: expected a number above 0, or None, got {self.margin!r}")
        if self.floor is not None and not np.isfinite(self.floor):
            raise ResultsError(f"floor: expected a finite number, or None, got {self.floor!r}")


@dataclass(frozen=True, kw_only=True)
class Results:
    """Scores of the images of a run: P prompts, S seeds, L lams. Sequences and nested lists are converted.

    Attributes:
        prompts: P prompts.
        seeds: S seeds; the images of one (prompt, seed) share all noise across lams, so they are pairs.
        lams: L mixing weights, ascending; 0 is the reference, 1 the anchor.
        scores: reward name -> array (P, S, L), higher is better unless ``rewards`` says otherwise; nan where there is
            no image, or no score of it.
        images: image files, array of paths (P, S, L), empty where there is none; all empty by default.
        folder: the run's folder, which messages name in commands; None for scores from elsewhere.
        unscored: reward name -> how many images have no score of it yet; such a reward is not among ``scores``.
        missing: how many images were requested and do not exist yet.
        path_kl: path KL to the reference in nats, array (P, S, L), or None where it was not recorded.
        paths: other trajectory statistics (`deradiff.trajectory.Paths`), name -> array (P, S, L), nan where unknown.
        rewards: reward name -> what is known of its scale; `RewardInfo`'s defaults where a name is missing.
        anchor_beta: KL strength the anchor was aligned at, or None where its card does not state it.
        votes: people's votes on pairs of these images, oldest first.
        details: what a reader needs to repeat the run (model, anchor, scheduler, steps, guidance, ...).

    Raises:
        ResultsError: a value of the wrong type, an array of another shape, lams that do not ascend, a score that is
            infinite, or a reward without any score.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    lams: Sequence[float]
    scores: Mapping[str, NDArray[np.float64]]
    images: Any = None  # NDArray[np.object_] after construction
    folder: Path | None = None
    unscored: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0
    path_kl: NDArray[np.float64] | None = None
    paths: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    rewards: Mapping[str, RewardInfo] = field(default_factory=dict)
    anchor_beta: float | None = None
    votes: Sequence[Vote] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set("prompts", _converted("prompts", self.prompts, _text, "a list of texts"))
        self._set("seeds", _converted("seeds", self.seeds, _whole, "a list of whole numbers, such as [0, 1]"))
        self._set("lams", _converted("lams", self.lams, float, "a list of numbers, such as [0, 0.5, 1]"))
        if 0 in self.shape:
            counts = "{} prompts x {} seeds x {} lams".format(*self.shape)
            raise ResultsError(f"no images: {counts}; run a sweep first")
        if not all(a < b for a, b in zip(self.lams, self.lams[1:], strict=False)) or not np.isfinite(self.lams).all():
            raise ResultsError(f"lams must ascend without repeats, got {self.lams}")
        for name in ("scores", "paths"):
            tables = getattr(self, name)
            if not isinstance(tables, Mapping):
                raise ResultsError(f"{name}: expected a mapping of names to arrays, got {shortened(tables)}")
            self._set(name, {key: self._table(key, table) for key, table in tables.items()})
        if self.path_kl is not None:
            self._set("path_kl", self._table("path_kl", self.path_kl))
        images = np.full(self.shape, "", dtype=object) if self.images is None else np.asarray(self.images, dtype=object)
        self._set("images", self._shaped("images", images))
        self._set("votes", _converted("votes", self.votes, _vote, "a list of deradiff.Vote"))
        if VOTES in self.scores:
            raise ResultsError(f"no reward may be called {VOTES!r}, which are people's; give that reward another name")
        for name, table in self.scores.items():
            if bad := int(np.sum(np.isinf(table))):
                raise ResultsError(f"{name}: {bad} of {table.size} scores are infinite; expected finite numbers")
            if np.isnan(table).all():
                raise ResultsError(f"{name}: all {table.size} scores are nan; expected numbers, nan for gaps alone")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

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
        """What is known of the scale of a reward."""
        return self.rewards.get(reward, RewardInfo())

    def scored(self, reward: str) -> NDArray[np.float64]:
        """The scores of one reward, (P, S, L).

        Raises:
            ResultsError: an unknown reward, or one that some images have no score of yet.
        """
        if reward in self.unscored:
            raise ResultsError(self.missing_scores_message(reward))
        if reward == VOTES:
            raise ResultsError("votes are on pairs of images and give no image a score: that takes a reward")
        if reward not in self.scores:
            known = ", ".join([*self.scores, *self.unscored])
            expected = f"; expected one of: {known}; or" if known else ", nor any other;"
            raise ResultsError(f"no reward {reward!r} here{expected} {self._how_to_score(reward)}")
        return self.scores[reward]

    def missing_scores_message(self, reward: str) -> str:
        """How many images have no score of a reward yet, and how to score them."""
        count = np.count_nonzero(self.images != "") or np.prod(self.shape)  # a table from elsewhere names no files
        missing = self.unscored[reward]
        lack = f"{missing} of {count} images {'has' if missing == 1 else 'have'} no score of {reward}"
        return f"{lack}; {self._how_to_score(reward)}"

    def _how_to_score(self, reward: str) -> str:
        if self.folder is None:
            return f"score the run: run.score({reward!r})"
        command = f"deradiff score {shlex.quote(str(self.folder))} --rewards {shlex.quote(reward)}"
        return f"score the run: {command} (from Python: run.score({reward!r}))"

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

        return replace(
            self,
            prompts=[self.prompts[row] for row in rows],
            lams=[self.lams[column] for column in columns],
            scores={name: cut(table) for name, table in self.scores.items()},
            images=cut(self.images),
            votes=self._votes_on([self.prompts[row] for row in rows], [self.lams[column] for column in columns]),
            path_kl=None if self.path_kl is None else cut(self.path_kl),
            paths={name: cut(table) for name, table in self.paths.items()},
        )

    def on_axes(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        lams: Sequence[float],
        rewards: Iterable[str] | None = None,
    ) -> "Results":
        """The table on other axes, with gaps where it has no value; what is not on these axes is left out.

        Args:
            prompts: without repeats.
            seeds: without repeats.
            lams: ascending.
            rewards: those to keep; all that are scored by default.

        Raises:
            ResultsError: a reward that isn't there, or that has no score on these axes.
        """
        pairs = [_shared(self.prompts, prompts), _shared(self.seeds, seeds), _shared(self.lams, lams)]
        source, target = (np.ix_(*indices) for indices in zip(*pairs, strict=True))

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
            votes=[vote for vote in self._votes_on(prompts, lams) if vote.seed in seeds],
            unscored={},
            path_kl=None if self.path_kl is None else moved(self.path_kl, np.nan),
            paths={name: moved(table, np.nan) for name, table in self.paths.items()},
        )

    def _votes_on(self, prompts: Sequence[str], lams: Sequence[float]) -> list[Vote]:
        texts, values = set(prompts), set(lams)
        return [vote for vote in self.votes if vote.prompt in texts and values.issuperset(vote.lams)]

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


class HasResults(Protocol):
    """An object with a table of results, such as `deradiff.Run`."""

    def results(self) -> Results:
        """The table of scores."""
        ...


def as_results(source: Results | HasResults) -> Results:
    """The table itself, or that of a run.

    Raises:
        ResultsError: ``source`` is neither.
    """
    if isinstance(source, Results):
        return source
    table = source.results() if callable(getattr(source, "results", None)) else None
    if not isinstance(table, Results):
        raise ResultsError(f"expected a deradiff.Run or deradiff.Results, got {type(source).__name__}")
    return table


def _converted(name: str, values: Any, convert: Callable[[Any], Any], expected: str) -> tuple[Any, ...]:
    try:
        if isinstance(values, str | Mapping):  # its letters or keys are not meant
            raise TypeError(type(values).__name__)
        return tuple(map(convert, values))
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{name}: expected {expected}, got {shortened(values)}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _vote(value: Any) -> Vote:
    if not isinstance(value, Vote):
        raise TypeError(type(value).__name__)
    return value


def _whole(value: Any) -> int:
    if int(value) != value:
        raise ValueError(value)
    return int(value)


def _shared(old: Sequence[Any], new: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Indices of the values that two axes share, on each."""
    indices = {value: index for index, value in enumerate(old)}
    shared = [(indices[value], index) for index, value in enumerate(new) if value in indices]
    return [index for index, _ in shared], [index for _, index in shared]

"""The search: sample, score, fit a surrogate, choose, and again where it decides most.

The next block follows from what is sampled, so the same command goes on where a stopped one was, and another question
starts from what the last one sampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deradiff.analysis.criteria import Criteria
from deradiff.analysis.curves import is_discrete
from deradiff.analysis.decide import candidate_indices, decide
from deradiff.analysis.limits import Floats
from deradiff.analysis.overoptimization import alarms
from deradiff.analysis.recommend import Recommendation, recommend_for
from deradiff.analysis.statistics import win_rates
from deradiff.errors import ConfigError, ResultsError
from deradiff.results import Results, RewardInfo
from deradiff.search.acquisition import (
    Acquisition,
    SampleBlock,
    cut_to_budget,
    initial_design,
    is_sampled_near,
    next_block,
    widest_gap,
    without_reference,
)
from deradiff.search.settings import Settings

Sample = Callable[[SampleBlock], Results]

QUANTILES = 0.1, 0.9, 0.025, 0.975
N_SAMPLES = 100  # tables of what sampling everything could give


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The surrogate's answer on the grid.

    Attributes:
        table: the whole grid, of which most was filled in, for the prompts in use.
        index: of the recommended lam, on the grid.
        interval: lams that sampling everything, all prompts and seeds, would choose between in 95% of what it could
            turn out to be, if rewards change smoothly along lam. That of a `Recommendation` is wider: it is for other
            prompts like these.
        spread: indices of the 10, 90, 2.5 and 97.5% quantiles of that.
    """

    table: Results
    index: int
    interval: tuple[float, float]
    spread: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The answer of a search.

    Attributes:
        recommendation: chosen on the whole grid, of which most was filled in; win rates and alarms are of sampled
            images alone.
        interval: see `Estimate`.
        table: see `Estimate`.
        sampled: the scores of what was sampled, on the grid, with gaps.
        stopped: why it ended.
    """

    recommendation: Recommendation
    interval: tuple[float, float]
    table: Results
    sampled: Results
    stopped: str

    @property
    def images(self) -> int:
        """How many images were sampled."""
        return int(known_images(self.sampled).sum())

    @property
    def sampled_lams(self) -> list[int]:
        """Indices of the lams that were sampled."""
        return np.flatnonzero(known_images(self.sampled).any(axis=(0, 1))).tolist()


def search(
    settings: Settings,
    lams: Sequence[float],
    prompts: int,
    sample: Sample,
    acquisition: Acquisition = next_block,
) -> SearchResult:
    """Find lam.

    Args:
        settings: the question.
        lams: the grid, ascending from 0.
        prompts: how many there are, 2 or more.
        sample: samples and scores what is missing of a block of indices of prompts, seeds and lams, and returns the
            scores of all that is sampled, for this question or earlier, on the whole grid, with gaps.
        acquisition: says what to sample next, as `next_block` does.

    Raises:
        ConfigError: a single prompt, or fewer images allowed than the initial design takes.
        ResultsError: what was sampled can't answer the question.
    """
    known = sample(check_start(settings, prompts, lams))
    while (block := without_reference(known_images(known))) is not None:
        known = sample(block)
    while True:
        estimate = estimate_lam(known, settings.criteria)
        block = acquisition(known_images(known), lams, estimate.index, estimate.spread)
        if block is not None and settings.max_images is not None:
            block = cut_to_budget(block, settings.max_images - int(known_images(known).sum()))
        stopped = _stop_reason(settings, estimate, known, block)
        if stopped or block is None:
            return search_result(known, settings.criteria, estimate, stopped)
        known = sample(block)


def check_start(settings: Settings, prompts: int, lams: Sequence[float]) -> SampleBlock:
    """The initial design.

    Raises:
        ConfigError: a single prompt, or fewer images allowed than that takes.
    """
    if settings.criteria.by_votes:
        raise ConfigError("a search scores images itself, and votes are people's: name a reward as the objective")
    if prompts < 2:
        raise ConfigError("a search needs 2 prompts or more: intervals need the spread between prompts")
    start = initial_design(prompts, lams)
    if settings.max_images is not None and start.images > settings.max_images:
        allowed = settings.max_images
        raise ConfigError(f"the first round takes {start.images} images, and {allowed} are allowed; allow more")
    return start


def known_images(results: Results) -> np.ndarray:
    """Whether each image of a grid with gaps is sampled and scored, (P, S, G)."""
    return np.all([np.isfinite(table) for table in results.scores.values()], axis=0)


def estimate_lam(known: Results, criteria: Criteria, n_samples: int = N_SAMPLES) -> Estimate:
    """Fit the surrogate to what was sampled, and choose on it.

    Args:
        known: scores on the whole grid, with gaps.
        criteria: the question.
        n_samples: number of tables of what sampling everything could give.

    Raises:
        ResultsError: an unknown reward, or an objective that never changes.
    """
    from deradiff.search.surrogate import fit_surrogate  # scikit-learn takes a second to import

    for name in criteria.rewards:
        scores = known.scored(name)
        if name in criteria.objectives and np.nanmin(scores) == np.nanmax(scores):
            count = int(np.isfinite(scores).sum())
            raise ResultsError(
                f"{name}: all {count} images sampled score the same, so no lam is better; give more prompts or seeds, "
                "or another objective"
            )
    surrogates = {name: fit_surrogate(known.scores[name], known.lams, n_samples) for name in known.scores}
    if criteria.kl_budget is not None:
        if known.path_kl is None:
            raise ResultsError("a KL budget needs path KL, which this run didn't record; search with diagnostics")
        surrogates[_KL] = fit_surrogate(known.path_kl, known.lams, n_samples)
    table = _on_grid(known, {name: fit.table for name, fit in surrogates.items()})
    sampled = [
        _on_grid(known, {name: fit.samples[number] for name, fit in surrogates.items()}) for number in range(n_samples)
    ]
    spread = np.quantile(candidate_indices(sampled, criteria), QUANTILES, method="inverted_cdf").astype(int).tolist()
    index = decide(table, criteria).choice.recommended
    low, high = min(spread[2], index), max(spread[3], index)
    return Estimate(table=table, index=index, interval=(known.lams[low], known.lams[high]), spread=tuple(spread))


def search_result(known: Results, criteria: Criteria, estimate: Estimate, stopped: str) -> SearchResult:
    """The full recommendation on what the surrogate filled in."""
    answer = recommend_for(estimate.table, criteria)
    curves = {
        name: replace(
            curve,
            wins=tuple(win_rates(known.scores[name], known.scores[name][:, :, [0]])),
            pairs=tuple(np.isfinite(known.scores[name]).sum(axis=(0, 1)).tolist()),
            wins_anchor=None,
        )
        for name, curve in answer.curves.items()
    }
    lams = np.flatnonzero(known_images(known).any(axis=(0, 1)))
    sampled = known.select(range(len(known.prompts)), lams.tolist())
    # Filled-in curves are smooth, so alarms on them would be overconfident; the acquisition suggests lams.
    answer = replace(answer, curves=curves, alarms=tuple(alarms(sampled, criteria)), suggested_lams=())
    return SearchResult(
        recommendation=answer, interval=estimate.interval, table=estimate.table, sampled=known, stopped=stopped
    )


_KL = "path KL"


def _on_grid(known: Results, tables: dict[str, Floats]) -> Results:
    """A table (P, 1, G) of the prompts in use; what a prompt can lose stays bounded as before it was filled in."""
    kl = tables.get(_KL)
    scores = {name: table[:, None] for name, table in tables.items() if name != _KL}
    rewards = {name: _bounded(known.info(name), known.scores[name]) for name in scores}
    return Results(
        prompts=list(known.prompts)[: len(next(iter(tables.values())))],
        seeds=(0,),
        lams=known.lams,
        scores=scores,
        path_kl=None if kl is None else kl[:, None],
        rewards=rewards,
        anchor_beta=known.anchor_beta,
    )


def _bounded(info: RewardInfo, scores: Floats) -> RewardInfo:
    if info.floor is None and is_discrete(scores, 0):
        return replace(info, floor=min(0.0, float(np.nanmin(scores))))
    return info


def _stop_reason(settings: Settings, estimate: Estimate, known: Results, block: SampleBlock | None) -> str:
    """Why to stop, or nothing."""
    low, high = estimate.interval
    wide, images = f"the interval is {high - low:.3g} wide", known_images(known)
    noise_known = images.any(axis=(0, 2)).sum() > 1 or images.shape[1] == 1
    settled = noise_known and is_sampled_near(images, estimate.index) and widest_gap(images, known.lams) is None
    if high - low <= settings.interval_width and settled:
        return f"the interval of lam is no wider than {settings.interval_width:g}"
    if block is not None:
        return ""
    if settings.max_images is not None and next_block(images, known.lams, estimate.index, estimate.spread) is not None:
        return f"the {settings.max_images:,} images allowed are used; {wide}"
    return f"all prompts and seeds are used around the answer; {wide}"

"""Which lam to take: the largest objective among the lams at which every guard holds.

How sure the choice is, its interval and the runner-up come from making it again in every resample of the prompts.
"""

from collections import Counter
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from deradiff.errors import ResultsError
from deradiff.recommend.alarm import alarms
from deradiff.recommend.ask import Ask, ask
from deradiff.recommend.curves import equivalent_beta, paired_curve, prompt_changes
from deradiff.recommend.grid import next_lams
from deradiff.recommend.hold import Bools, Holding
from deradiff.recommend.intervals import Floats
from deradiff.recommend.recommendation import Recommendation
from deradiff.recommend.resample import draw
from deradiff.results import Results

MOST_TIMES = 100  # as many prompts as there are, beyond which more are no advice


def recommend(
    results: Results, *, objective: str, guard: str | None = None, kl_budget: float | None = None
) -> Recommendation:
    """The lam of the largest mean objective at which no guard is significantly below what is allowed.

    Args:
        results: a sweep with lam = 0 among its lams.
        objective: names of the rewards to raise, separated by commas. Of several, the Pareto set is told, and ``lam``
            is that of the largest mean gain, each gain as a share of the objective's largest.
        guard: names of rewards that must hold and what each may lose, ``hps:0,clip:-0.5%,edges:±10%``.
        kl_budget: the largest mean path KL, in nats.

    Raises:
        ResultsError: a question that can't be read, a reward that is unknown or scored in part, lam = 0 missing, a
            single lam or prompt, an objective that never changes, or a KL budget for a run that recorded no path KL.
    """
    question = ask(objective, guard, kl_budget)
    curves = {name: paired_curve(results, name) for name in question.rewards}
    for name in question.objectives:
        scores = results.scores[name]
        if np.ptp(scores) == 0:
            equal = f"{name}: all {scores.size} scores are {scores.flat[0]:g}"
            raise ResultsError(f"{equal}, so no lam is better; choose another objective")
    curves |= {name: paired_curve(results, name) for name in sorted(set(results.scores) - set(curves))}
    weights = draw(len(results.prompts))
    holding = Holding(results, question)
    allowed = holding.allowed()
    gains = _gains(results, question)
    best, chosen, pareto = _choices(results.lams, gains, weights, allowed, holding.allowed(weights))
    counts = Counter(chosen.tolist())
    sure = counts.pop(best, 0)
    runner_up = counts.most_common(1)[0] if counts else None
    low, high = (results.lams[int(place)] for place in np.quantile(chosen, (0.025, 0.975), method="inverted_cdf"))
    lam = results.lams[best]
    return Recommendation(
        lam=lam,
        betas=tuple(equivalent_beta(results, own) for own in results.lams),
        interval=(min(low, lam), max(high, lam)),
        sure=sure / len(chosen),
        runner_up=None if runner_up is None else results.lams[runner_up[0]],
        prompts_needed=None if runner_up is None else _needed(sure, runner_up[1], len(results.prompts)),
        pareto=tuple((results.lams[place], share) for place, share in pareto.items()),
        curves=curves,
        allowed=tuple(allowed.tolist()),
        failing=holding.failing(),
        alarms=tuple(alarms(results, question.objectives, question.held)),
        next_lams=tuple(next_lams([curves[name] for name in question.objectives], allowed.tolist(), best)),
        left_out=tuple(map(results.lack, results.unscored)),
        question=question,
        prompts=len(results.prompts),
    )


def taken(results: Results, question: Ask) -> int:
    """The place of the lam that `recommend` takes, and nothing else."""
    allowed = _takeable(results.lams, Holding(results, question).allowed())
    return int(_largest(_gains(results, question).mean(axis=1), allowed))


def _gains(results: Results, question: Ask) -> Floats:
    """Each prompt's gain in each objective, (objectives, P, L), as a share of the objective's largest mean gain."""
    gains = np.stack([prompt_changes(results, name) for name in question.objectives])
    scale = np.abs(gains.mean(axis=1)).max(axis=1)
    return gains / np.where(scale, scale, 1)[:, None, None]


def _takeable(lams: tuple[float, ...], allowed: Bools) -> Bools:
    """The reference can always be taken."""
    return allowed | (np.array(lams) == 0)


def _largest(means: Floats, allowed: Bools) -> NDArray[np.int64]:
    """Where the sum of objectives (..., objectives, L) is largest among the allowed lams (..., L)."""
    return np.where(allowed, means.sum(axis=-2), -np.inf).argmax(axis=-1)


def _choices(
    lams: tuple[float, ...], gains: Floats, weights: Floats, allowed: Bools, allowed_drawn: Bools
) -> tuple[int, NDArray[np.int64], dict[int, float]]:
    """The place chosen, that of every resample, and of several objectives the Pareto set with its shares."""
    allowed, allowed_drawn = _takeable(lams, allowed), _takeable(lams, allowed_drawn)
    drawn, means = np.einsum("bp,opl->bol", weights, gains), gains.mean(axis=1)
    best, chosen = int(_largest(means, allowed)), _largest(drawn, allowed_drawn)
    if len(gains) == 1:
        return best, chosen, {}
    shares = _undominated(drawn, allowed_drawn).mean(axis=0)
    return best, chosen, {int(place): float(shares[place]) for place in np.flatnonzero(_undominated(means, allowed))}


def _undominated(gains: Floats, allowed: Bools) -> Bools:
    """Which lams no other allowed one beats in an objective without losing in another; (..., O, L) to (..., L)."""
    ours, theirs = gains[..., :, :, None], gains[..., :, None, :]
    beaten = (theirs >= ours).all(axis=-3) & (theirs > ours).any(axis=-3) & allowed[..., None, :]
    return allowed & ~beaten.any(axis=-1)


def _needed(first: int, second: int, prompts: int) -> int | None:
    """Prompts at which as large a difference would be told from none at 95 %, one-sided; None where nobody has them."""
    share = first / (first + second)
    if share <= 0.5:
        return None
    times = float(ndtri(0.95) / ndtri(min(share, 1 - 1e-9))) ** 2
    return None if times > MOST_TIMES else max(prompts, ceil(prompts * times))

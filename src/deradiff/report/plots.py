"""All plots of a run and its answer, each with its title, a text that stands for it, and a name for its file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from deradiff.analysis.curves import Curve
from deradiff.analysis.recommend import Recommendation
from deradiff.analysis.reweight import Reweighted, reweight, unsupported_reason
from deradiff.report import figures
from deradiff.results import Results


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        title: what is drawn against what.
        description: its figures in a sentence, for those who don't see it.
        figure: the plot.
    """

    title: str
    description: str
    figure: go.Figure

    @property
    def slug(self) -> str:
        """A name for files: its title in letters, digits and hyphens."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:80] or "plot"

    @property
    def spec(self) -> str:
        """The plot as JSON."""
        return self.figure.to_json() or ""


@dataclass(frozen=True, kw_only=True)
class Plots:
    """The plots of a run, in the order in which they are shown; objectives and guards come first.

    Attributes:
        by_lam: each reward against lam, by its name.
        by_kl: each reward against path KL, by its name; empty where that wasn't recorded.
        against: held-out rewards against the objective, by their names: guards, and what an alarm is raised of.
        trusted_range: effective sample size against lam; None where nothing can be reweighted.
        reweighted: the exact mixture's curve of the objective; None likewise.
    """

    by_lam: Mapping[str, Plot]
    by_kl: Mapping[str, Plot]
    against: Mapping[str, Plot]
    trusted_range: Plot | None
    reweighted: Reweighted | None

    @property
    def all(self) -> list[Plot]:
        """Every plot."""
        last = [] if self.trusted_range is None else [self.trusted_range]
        return [*self.by_lam.values(), *self.by_kl.values(), *self.against.values(), *last]


def sampled_images(results: Results) -> NDArray[np.bool_]:
    """Whether each image was sampled: it has a file or a score, (P, S, L)."""
    files = np.array(results.images != "", dtype=bool)
    return np.any([files, *(np.isfinite(table) for table in results.scores.values())], axis=0)


def make_plots(results: Results, answer: Recommendation) -> Plots:
    """The plots of a table and the answer to it."""
    curves, objective = answer.curves, answer.criteria.objectives[0]
    reweighted = {} if unsupported_reason(results) else {name: reweight(results, name) for name in results.scores}
    sampled: list[bool] = np.asarray(sampled_images(results).any(axis=(0, 1))).tolist()
    by_lam = {
        name: Plot(
            title=f"Mean {name} against lam",
            description=_describe(curve, answer.lam),
            figure=figures.reward_against_lam(
                results, curve, sampled, chosen=answer.lam, reweighted=reweighted.get(name)
            ),
        )
        for name, curve in curves.items()
    }
    against = {
        name: Plot(
            title=f"Mean {name} against mean {objective} along lam",
            description=f"{_describe(curves[objective], answer.lam)} {_describe(curves[name], answer.lam)}",
            figure=figures.guard_against_objective(curves[objective], curves[name], sampled, chosen=answer.lam),
        )
        for name in _held_out(answer)
    }
    return Plots(
        by_lam=by_lam,
        by_kl=_by_kl(results, answer, sampled, reweighted),
        against=against,
        trusted_range=_trusted_range(reweighted[objective]) if objective in reweighted else None,
        reweighted=reweighted.get(objective),
    )


def _held_out(answer: Recommendation) -> list[str]:
    """Guards, and rewards that an alarm of the first objective is raised of."""
    names = list(answer.criteria.guard_names)
    alarmed = {alarm.reward for alarm in answer.raised_alarms if alarm.objective == answer.criteria.objectives[0]}
    return names + sorted(alarmed - set(names))


def _by_kl(
    results: Results, answer: Recommendation, sampled: Sequence[bool], reweighted: Mapping[str, Reweighted]
) -> dict[str, Plot]:
    plots = dict[str, Plot]()
    for name, curve in answer.curves.items():
        figure = figures.reward_against_kl(results, curve, sampled, chosen=answer.lam, reweighted=reweighted.get(name))
        if figure is not None:
            described = _describe(curve, answer.lam)
            plots[name] = Plot(title=f"Mean {name} against path KL", description=described, figure=figure)
    return plots


def _trusted_range(reweighted: Reweighted) -> Plot:
    trusted = [lam for lam, is_trusted in zip(reweighted.lams, reweighted.trusted, strict=True) if is_trusted]
    where = f"from lam = {trusted[0]:g} to {trusted[-1]:g}" if trusted else "nowhere"
    return Plot(
        title="Effective sample size against lam",
        description=f"Estimates at other lams can be trusted {where}.",
        figure=figures.trusted_range(reweighted),
    )


def _describe(curve: Curve, chosen: float) -> str:
    """A curve at its ends, at the reference and at the recommended lam."""
    lams = sorted({curve.lams[0], 0.0, chosen, curve.lams[-1]})
    values = [f"{curve.score[curve.lams.index(lam)]:.3g} at lam = {lam:g}" for lam in lams]
    return f"Mean {curve.reward} is {', '.join(values)}."

"""The section of a report on people's votes: which lam they prefer, and how far rewards and raters agree with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from deradiff.analysis.agreement import rater_agreement, reward_agreement
from deradiff.analysis.statistics import Interval
from deradiff.analysis.vote_messages import agreement_sentences, vote_interval, vote_source, votes_to_settle
from deradiff.analysis.votes import VoteFit, fit_votes
from deradiff.errors import ConfigError
from deradiff.report.figures import ACCENT, LINE, axis_range, blank, follow_lam
from deradiff.results import Results


@dataclass(frozen=True, kw_only=True)
class VoteSection:
    """What a page says of votes.

    Attributes:
        sentences: in their order.
        by_lam: win rates against the reference along lam, a figure's spec in JSON.
        agreement: how often rewards agree with people, likewise; None where no reward can be compared.
    """

    sentences: tuple[str, ...]
    by_lam: str
    agreement: str | None


def vote_section(results: Results, fit: VoteFit | None = None) -> VoteSection | None:
    """The section on the votes of a run; None where there are none, or no reference to compare with.

    Args:
        results: the table, with its votes.
        fit: of these votes, where it is at hand.
    """
    if not results.votes or 0 not in results.lams:
        return None
    fit = fit_votes(results.votes, results.lams) if fit is None else fit
    agreements = reward_agreement(results.votes, results)
    sentences = [f"{vote_source(fit)}. {vote_interval(fit)}", votes_to_settle(fit), *_agreement_sentences(results)]
    return VoteSection(
        sentences=tuple(filter(None, sentences)),
        by_lam=str(wins_against_lam(fit).to_json()),
        agreement=str(reward_agreement_figure(agreements).to_json()) if agreements else None,
    )


def _agreement_sentences(results: Results) -> list[str]:
    try:
        return list(agreement_sentences(rater_agreement(results.votes)))
    except ConfigError as error:  # an optional package
        return [f"{error}."]


def wins_against_lam(fit: VoteFit) -> go.Figure:
    """Each lam's win rate against the reference, with 95% limits; the preferred lam is dashed."""
    wins = fit.win_rates(0.0)
    figure = blank("lam", "preferred to the reference")
    figure.add_scatter(
        x=list(fit.lams),
        y=[win.mean for win in wins],
        mode="lines+markers",
        line={"color": LINE, "width": 1.5},
        error_y=_bars(wins),
        hovertemplate="lam %{x}<br>%{y:.0%} of pairs<extra></extra>",
    )
    figure.add_hline(y=0.5, line={"color": LINE, "width": 1, "dash": "dot"})
    figure.add_vline(x=fit.best, line={"color": ACCENT, "width": 1.5, "dash": "dash"})
    figure.update_xaxes(range=axis_range(fit.lams)).update_yaxes(tickformat=".0%")
    return follow_lam(figure, {lam: (lam, None) for lam in fit.lams}, [0, 1])


def reward_agreement_figure(agreements: Mapping[str, tuple[Interval, int]]) -> go.Figure:
    """By reward the share of decided votes whose better image it scores higher, the most agreeing one on top."""
    order = sorted(agreements, key=lambda name: agreements[name][0].mean)
    shares = [agreements[name][0] for name in order]
    figure = blank("agrees with people's votes", "")
    figure.add_scatter(
        x=[share.mean for share in shares],
        y=[escape(name) for name in order],
        mode="markers",
        marker={"color": ACCENT, "size": 10},
        error_x=_bars(shares),
        customdata=[agreements[name][1] for name in order],
        hovertemplate="%{y}: %{x:.0%} of %{customdata} votes<extra></extra>",
    )
    figure.add_vline(x=0.5, line={"color": LINE, "width": 1, "dash": "dot"})
    return figure.update_xaxes(tickformat=".0%", range=[0, 1]).update_yaxes(automargin=True)


def _bars(intervals: tuple[Interval, ...] | list[Interval]) -> dict[str, object]:
    above, below = [one.high - one.mean for one in intervals], [one.mean - one.low for one in intervals]
    return {"array": above, "arrayminus": below, "color": LINE, "thickness": 1, "width": 0}

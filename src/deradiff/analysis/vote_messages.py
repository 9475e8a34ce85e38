"""What votes say, in sentences."""

from collections.abc import Iterator

from deradiff.analysis.agreement import RaterAgreement
from deradiff.analysis.statistics import Interval
from deradiff.analysis.votes import PRACTICAL, VoteFit


def vote_source(fit: VoteFit) -> str:
    """How many votes, by whom, on what."""
    counts = ((fit.votes, "vote"), (len(fit.raters), "rater"), (fit.prompts, "prompt"))
    votes, raters, prompts = (f"{count:,} {what}{'s' * (count != 1)}" for count, what in counts)
    return f"{votes} by {raters} on {prompts} ({fit.ties / max(fit.votes, 1):.0%} ties)"


def vote_reasons(fit: VoteFit, index: int) -> Iterator[str]:
    """Why the lam at an index is taken, a sentence each, with the figures."""
    lams = fit.lams
    where = f"at lam = {lams[index]:g}"
    against = {0.0: "the reference's", 1.0: "the anchor's"}
    others = [lam for lam in against if lam in lams and lam != lams[index]]
    wins = [f"{against[lam]} in {_share(fit.win_rates(lam)[index])}" for lam in others]
    yield f"From {vote_source(fit)}: images {where} are preferred to {' and to '.join(wins)} of pairs, ties half."


def vote_interval(fit: VoteFit) -> str:
    """Where the lam that people prefer lies, whatever the guards say."""
    low, high = fit.interval
    where = f"is {low:g}" if low == high else f"lies between {low:g} and {high:g}"
    return f"The lam that people like these prefer {where} (95% probability), guards apart."


def votes_to_settle(fit: VoteFit) -> str | None:
    """How many more votes would decide the lam; None where it is decided."""
    if fit.is_decided:
        return None
    needed = fit.votes_needed
    text = "More votes" if needed is None else f"About {needed:,} more vote{'s' * (needed != 1)}"
    return (
        f"{text} would decide which lam people prefer: that no other lam wins more than {PRACTICAL:.0%} of pairs "
        f"against lam = {fit.best:g}."
    )


def agreement_sentences(agreement: RaterAgreement) -> Iterator[str]:
    """How far raters agree with each other and with themselves, where that is known."""
    if agreement.alpha is not None:
        alpha = agreement.alpha
        yield (
            f"Raters agree with a Krippendorff's alpha of {alpha.mean:.2f} (95% interval {alpha.low:.2f} to "
            f"{alpha.high:.2f}) on {_pairs(agreement.pairs, 'shared pair')}: 1 is full agreement, 0 is chance."
        )
    if agreement.consistent is not None:
        share = f"{agreement.consistent:.0%} of {_pairs(agreement.repeats, 'pair')}"
        yield f"Shown again to the same rater with swapped sides, {share} got the same vote."


def vote_warnings(fit: VoteFit) -> Iterator[str]:
    """What a reader should know before trusting votes."""
    if len(fit.raters) == 1:
        yield "All votes are by one rater: other people may prefer another lam."


def _pairs(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _share(share: Interval) -> str:
    return f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"

"""What a recommendation holds, in figures and in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from deradiff.recommend import beware, words
from deradiff.recommend.alarm import Alarm
from deradiff.recommend.ask import Ask
from deradiff.recommend.curves import Curve


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The lam to take and why.

    Attributes:
        lam: the recommended mixing weight.
        betas: for each lam the KL strength it stands for, anchor_beta / lam; None for lam <= 0 or an unknown
            anchor_beta.
        interval: lams that 95 % of resamples choose between.
        sure: share of resamples of the prompts that choose ``lam``.
        runner_up: the lam that the others choose most often; None where all choose ``lam``.
        prompts_needed: how many prompts, as these, would tell the two apart at 95 %; None where they need no telling
            apart, or can't be: their resamples are as many.
        pareto: of several objectives, each lam that no other allowed one beats in all, and the share of resamples in
            which it is such; empty for one objective.
        curves: of all rewards, the objectives' and guards' first.
        allowed: for each lam, whether every guard holds there and on the way there.
        failing: for each lam, the rewards whose guards fail at it, and ``path KL`` where that is over the budget.
        alarms: signs that an objective is over-optimised, raised or silent, the surest first.
        next_lams: lams to sweep next, where the grid is too coarse or ends too early; empty where it isn't.
        left_out: of each reward that some images have no score of, how many, and what to do.
        question: what was asked.
        prompts: how many there were.
    """

    lam: float
    betas: tuple[float | None, ...]
    interval: tuple[float, float]
    sure: float
    runner_up: float | None
    prompts_needed: int | None
    pareto: tuple[tuple[float, float], ...]
    curves: Mapping[str, Curve]
    allowed: tuple[bool, ...]
    failing: tuple[tuple[str, ...], ...]
    alarms: tuple[Alarm, ...]
    next_lams: tuple[float, ...]
    left_out: tuple[str, ...]
    question: Ask
    prompts: int

    @property
    def place(self) -> int:
        """The place of ``lam`` among the lams swept."""
        return next(iter(self.curves.values())).lams.index(self.lam)

    @property
    def beta(self) -> float | None:
        """The KL strength that ``lam`` stands for."""
        return self.betas[self.place]

    @property
    def failures(self) -> tuple[str, ...]:
        """For each lam what fails at it, in words; empty where nothing does."""
        return tuple(words.failure(self, names) for names in self.failing)

    @property
    def reason(self) -> str:
        """Why this lam, in a few sentences with the figures."""
        return " ".join(words.reason(self))

    @property
    def certainty(self) -> str:
        """How sure, the interval, the runner-up, and what would change it."""
        return words.certainty(self)

    @property
    def hacking(self) -> tuple[str, ...]:
        """The alarms that are raised, a sentence each."""
        return tuple(beware.hacking(alarm) for alarm in self.alarms if alarm.raised)

    @property
    def silence(self) -> str | None:
        """Where no alarm is raised, how near the nearest is; None where one is, or where nothing could raise one."""
        return beware.silence(self.alarms[0], self.prompts) if self.alarms and not self.alarms[0].raised else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before trusting the choice."""
        return tuple(beware.warnings(self))

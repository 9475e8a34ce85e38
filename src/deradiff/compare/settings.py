"""What a comparison compares: frozen, and enough to make every image of every arm again."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from deradiff.compare.aligned import Aligned, refuse_other_conventions
from deradiff.compare.optimum import LEAST_ESS
from deradiff.errors import PlanError
from deradiff.mixture import lam_from_beta
from deradiff.sweep import Plan


class Comparison(BaseModel):
    """Anchors against models aligned from scratch, on the prompts and seeds of one plan.

    Attributes:
        anchors: each emulates every beta at lam = its beta / beta.
        scratch: models aligned from scratch, one or more (training seeds) a beta.
        schedulers: diffusers class names; None is the pipeline's own.
        plan: of the first anchor under the first scheduler; the others change its anchor, lams, scheduler and mode.
        optimum: further samples of the reference, for each prompt, from which the optimum at each beta is weighed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    anchors: tuple[Aligned, ...]
    scratch: tuple[Aligned, ...]
    schedulers: tuple[str | None, ...]
    plan: Plan
    optimum: int = 0

    @classmethod
    def of(
        cls,
        anchors: Sequence[Aligned],
        scratch: Sequence[Aligned],
        schedulers: Sequence[str | None] = (None,),
        *,
        optimum: int = 0,
        **sampling: object,
    ) -> "Comparison":
        """A comparison from aligned models and the other settings of :class:`Plan`.

        Raises:
            PlanError: fewer than two betas or prompts, one thing given twice, betas of several conventions, too few
                samples for an optimum, or a setting that no plan takes.
        """
        _refuse_twice([f"the scheduler {scheduler}" for scheduler in schedulers])
        _refuse_twice([f"an anchor of {anchor}" for anchor in anchors])
        _refuse_twice([f"a model from scratch of {model}" for model in scratch])
        refuse_other_conventions([*anchors, *scratch])
        betas = {model.beta for model in scratch}
        if len(betas) < 2:
            raise PlanError(
                f"expected models from scratch at two or more betas, got {sorted(betas)}: errors are told as a share "
                "of the spread between betas"
            )
        if optimum and optimum < LEAST_ESS:
            raise PlanError(f"expected {LEAST_ESS} or more samples of the reference for the optimum, got {optimum}")
        first = anchors[0]
        plan = Plan.of(
            **sampling,
            anchor=first.name,
            anchor_beta=first.beta,
            lams=_lams(first, betas) | {0.0, 1.0},
            scheduler=schedulers[0],
            diagnostics=False,
        )
        if len(plan.prompts) < 2:
            raise PlanError("expected two or more prompts, got 1: intervals need the spread between prompts")
        if len(plan.guidances) > 1:
            raise PlanError(f"expected one guidance, got {plan.guidances}; compare each in a folder of its own")
        own = {"anchors": tuple(anchors), "scratch": tuple(scratch), "schedulers": tuple(schedulers)}
        return cls(**own, plan=plan, optimum=optimum)

    @property
    def betas(self) -> tuple[float, ...]:
        """Those of the models from scratch, ascending, each once."""
        return tuple(sorted({model.beta for model in self.scratch}))

    def deradiff(self, anchor: Aligned, scheduler: str | None) -> tuple[str, Plan]:
        """Folder name and plan of an anchor at every lam, and of the reference."""
        return self._arm("deradiff", anchor, scheduler, _lams(anchor, self.betas) | {0.0, 1.0})

    def weights(self, anchor: Aligned, scheduler: str | None) -> tuple[str, Plan]:
        """Folder name and plan of weight interpolation at the same lams."""
        return self._arm("weights", anchor, scheduler, _lams(anchor, self.betas), mode="weights")

    def from_scratch(self, model: Aligned, scheduler: str | None) -> tuple[str, Plan]:
        """Folder name and plan of a model aligned from scratch."""
        return self._arm("scratch", model, scheduler, {1.0})

    def pool(self, scheduler: str | None) -> tuple[str, Plan]:
        """Folder name and plan of the reference's samples for the optimum, of seeds that no arm has."""
        first = max(self.plan.seeds) + 1
        own = {"lams": {0.0}, "seeds": range(first, first + self.optimum), "scheduler": scheduler}
        return f"pool-{scheduler or 'own'}", Plan.of(**{**dict(self.plan), **own})

    def plans(self) -> dict[str, Plan]:
        """Folder name -> plan, of every arm."""
        return dict(
            arm
            for scheduler in self.schedulers
            for arm in (
                *([self.pool(scheduler)] if self.optimum else []),
                *(self.from_scratch(model, scheduler) for model in self.scratch),
                *(make(anchor, scheduler) for anchor in self.anchors for make in (self.deradiff, self.weights)),
            )
        )

    def _arm(
        self, kind: str, model: Aligned, scheduler: str | None, lams: set[float], **mode: object
    ) -> tuple[str, Plan]:
        own = {"anchor": model.name, "anchor_beta": model.beta, "lams": lams, "scheduler": scheduler, **mode}
        return f"{kind}-{model}-{scheduler or 'own'}", Plan.of(**{**dict(self.plan), **own})


def _lams(anchor: Aligned, betas: Iterable[float]) -> set[float]:
    return {lam_from_beta(anchor.beta, beta) for beta in betas}


def _refuse_twice(given: list[str]) -> None:
    if twice := [what for what, count in Counter(given).items() if count > 1]:
        raise PlanError(f"given twice: {', '.join(twice)}; leave one out")

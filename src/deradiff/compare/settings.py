"""What a comparison compares: frozen, and enough to make every image of every arm again."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from deradiff.compare.aligned import Aligned, check_conventions
from deradiff.compare.optimum import LEAST_ESS
from deradiff.errors import ConfigError
from deradiff.mixture import lam_from_beta
from deradiff.runs.cells import Request
from deradiff.runs.recipe import Recipe
from deradiff.validation import ValidatedModel


class Arm(NamedTuple):
    """One run of a comparison: its folder's name, what its images share, and which they are."""

    folder: str
    recipe: Recipe
    request: Request


class Comparison(ValidatedModel):
    """Anchors against models aligned from scratch, on the same prompts and seeds.

    Attributes:
        anchors: each emulates every beta at lam = its beta / beta.
        scratch: models aligned from scratch, one or more (training seeds) a beta.
        schedulers: diffusers class names; None is the pipeline's own.
        recipe: of the first anchor under the first scheduler; the others change its anchor, scheduler and policy.
        request: likewise; the others change its lams.
        optimum: further samples of the reference, for each prompt, from which the optimum at each beta is weighed.
    """

    anchors: tuple[Aligned, ...]
    scratch: tuple[Aligned, ...]
    schedulers: tuple[str | None, ...]
    recipe: Recipe
    request: Request
    optimum: int = 0

    @classmethod
    def of(
        cls,
        anchors: Sequence[Aligned],
        scratch: Sequence[Aligned],
        schedulers: Sequence[str | None] = (None,),
        *,
        optimum: int = 0,
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance: float | None = None,
        **settings: Any,
    ) -> "Comparison":
        """A comparison from aligned models, what to draw, and the other settings of a `Recipe`.

        Raises:
            ConfigError: fewer than two betas or prompts, one thing given twice, betas of several conventions, too few
                samples for an optimum, or a setting that no recipe takes.
        """
        _check_unique([f"the scheduler {scheduler}" for scheduler in schedulers])
        _check_unique([f"an anchor of {anchor}" for anchor in anchors])
        _check_unique([f"a model from scratch of {model}" for model in scratch])
        check_conventions([*anchors, *scratch])
        betas = {model.beta for model in scratch}
        if len(betas) < 2:
            raise ConfigError(
                f"expected models from scratch at two or more betas, got {sorted(betas)}: errors are told as a share "
                "of the spread between betas"
            )
        if optimum and optimum < LEAST_ESS:
            raise ConfigError(f"expected {LEAST_ESS} or more samples of the reference for the optimum, got {optimum}")
        first = anchors[0]
        recipe = Recipe(
            **settings, anchor=first.name, anchor_beta=first.beta, scheduler=schedulers[0], diagnostics=False
        )
        lams = _lams(first, betas) | {0.0, 1.0}
        request = Request(prompts=prompts, seeds=seeds, lams=lams, guidances=[guidance])
        if len(request.prompts) < 2:
            raise ConfigError("expected two or more prompts, got 1: intervals need the spread between prompts")
        own = {"anchors": tuple(anchors), "scratch": tuple(scratch), "schedulers": tuple(schedulers)}
        return cls(**own, recipe=recipe, request=request, optimum=optimum)

    @property
    def betas(self) -> tuple[float, ...]:
        """Those of the models from scratch, ascending, each once."""
        return tuple(sorted({model.beta for model in self.scratch}))

    def deradiff(self, anchor: Aligned, scheduler: str | None) -> Arm:
        """An anchor at every lam, and the reference."""
        return self._arm("deradiff", anchor, scheduler, _lams(anchor, self.betas) | {0.0, 1.0})

    def weights(self, anchor: Aligned, scheduler: str | None) -> Arm:
        """Weight interpolation at the same lams."""
        return self._arm("weights", anchor, scheduler, _lams(anchor, self.betas), policy="weights")

    def from_scratch(self, model: Aligned, scheduler: str | None) -> Arm:
        """A model aligned from scratch."""
        return self._arm("scratch", model, scheduler, {1.0})

    def pool(self, scheduler: str | None) -> Arm:
        """The reference's samples for the optimum, of seeds that no arm has."""
        first = max(self.request.seeds) + 1
        request = {"lams": {0.0}, "seeds": range(first, first + self.optimum)}
        return Arm(f"pool-{scheduler or 'own'}", self._recipe(scheduler=scheduler), self._request(**request))

    def arms(self) -> list[Arm]:
        """Every run."""
        return [
            arm
            for scheduler in self.schedulers
            for arm in (
                *([self.pool(scheduler)] if self.optimum else []),
                *(self.from_scratch(model, scheduler) for model in self.scratch),
                *(make(anchor, scheduler) for anchor in self.anchors for make in (self.deradiff, self.weights)),
            )
        ]

    def _arm(self, kind: str, model: Aligned, scheduler: str | None, lams: set[float], **policy: Any) -> Arm:
        recipe = self._recipe(anchor=model.name, anchor_beta=model.beta, scheduler=scheduler, **policy)
        return Arm(f"{kind}-{model}-{scheduler or 'own'}", recipe, self._request(lams=lams))

    def _recipe(self, **changes: Any) -> Recipe:
        return Recipe(**{**dict(self.recipe), **changes})

    def _request(self, **changes: Any) -> Request:
        return Request(**{**dict(self.request), **changes})


def _lams(anchor: Aligned, betas: Iterable[float]) -> set[float]:
    return {lam_from_beta(anchor.beta, beta) for beta in betas}


def _check_unique(given: list[str]) -> None:
    if twice := [what for what, count in Counter(given).items() if count > 1]:
        raise ConfigError(f"given twice: {', '.join(twice)}; leave one out")

"""The settings of a comparison: frozen, and sufficient to sample every image of every arm again."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field

from deradiff.compare.aligned import Aligned, check_conventions
from deradiff.compare.optimum import LEAST_ESS
from deradiff.errors import ConfigError
from deradiff.mixture import lam_from_beta
from deradiff.runs.cells import Request
from deradiff.runs.recipe import Recipe
from deradiff.validation import ValidatedModel


class Arm(NamedTuple):
    """One run of a comparison: its folder's name, its recipe and its images."""

    folder: str
    recipe: Recipe
    request: Request


class Comparison(ValidatedModel):
    """Anchors against retrained models, on the same prompts and seeds.

    Attributes:
        anchors: each emulates every beta at lam = its beta / beta.
        retrained: models aligned from scratch, one or more (training seeds) for each beta; ``scratch`` on disk.
        schedulers: diffusers class names; None is the pipeline's own.
        recipe: of the first anchor under the first scheduler; other arms change its anchor, scheduler and policy.
        request: of the first anchor; other arms change its lams.
        optimum: number of further samples of the reference for each prompt, to estimate the optimum at each beta.
    """

    model_config = ConfigDict(populate_by_name=True)

    anchors: tuple[Aligned, ...]
    retrained: tuple[Aligned, ...] = Field(alias="scratch")
    schedulers: tuple[str | None, ...]
    recipe: Recipe
    request: Request
    optimum: int = 0

    @classmethod
    def from_models(
        cls,
        anchors: Sequence[Aligned],
        retrained: Sequence[Aligned],
        schedulers: Sequence[str | None] = (None,),
        *,
        optimum: int = 0,
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance: float | None = None,
        **settings: Any,
    ) -> "Comparison":
        """A comparison of aligned models.

        Args:
            anchors: models that emulate the retrained ones.
            retrained: models aligned from scratch.
            schedulers: diffusers class names; None is the pipeline's own.
            optimum: number of samples of the reference for each prompt; 0 leaves the optimum out.
            prompts: two or more texts.
            seeds: sampling seeds.
            guidance: classifier-free guidance scale; None is the pipeline's default.
            settings: other settings of a `Recipe`.

        Raises:
            ConfigError: fewer than two betas or prompts, a duplicate, betas of several conventions, too few samples for
                the optimum, or an unknown setting.
        """
        _check_unique([f"the scheduler {scheduler}" for scheduler in schedulers])
        _check_unique([f"an anchor of {anchor}" for anchor in anchors])
        _check_unique([f"a retrained model of {model}" for model in retrained])
        check_conventions([*anchors, *retrained])
        betas = {model.beta for model in retrained}
        if len(betas) < 2:
            raise ConfigError(
                f"expected retrained models at two or more betas, got {sorted(betas)}: errors are shares of the spread "
                "between betas"
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
        # in a dictionary, as the model's alias hides the name from type checkers
        models: dict[str, Any] = {"anchors": tuple(anchors), "retrained": tuple(retrained)}
        return cls(**models, schedulers=tuple(schedulers), recipe=recipe, request=request, optimum=optimum)

    @property
    def betas(self) -> tuple[float, ...]:
        """The betas of the retrained models, ascending, each once."""
        return tuple(sorted({model.beta for model in self.retrained}))

    def deradiff(self, anchor: Aligned, scheduler: str | None) -> Arm:
        """The arm of an anchor at every lam, and of the reference."""
        return self._arm("deradiff", anchor, scheduler, _lams(anchor, self.betas) | {0.0, 1.0})

    def weights(self, anchor: Aligned, scheduler: str | None) -> Arm:
        """The arm of weight interpolation at the same lams."""
        return self._arm("weights", anchor, scheduler, _lams(anchor, self.betas), policy="weights")

    def retrained_arm(self, model: Aligned, scheduler: str | None) -> Arm:
        """The arm of a retrained model."""
        return self._arm("scratch", model, scheduler, {1.0})

    def pool(self, scheduler: str | None) -> Arm:
        """The arm of the reference's samples for the optimum, with seeds of their own."""
        first = max(self.request.seeds) + 1
        request = {"lams": {0.0}, "seeds": range(first, first + self.optimum)}
        return Arm(f"pool-{scheduler or 'own'}", self._recipe(scheduler=scheduler), self._request(**request))

    def arms(self) -> list[Arm]:
        """All arms, each a run."""
        return [
            arm
            for scheduler in self.schedulers
            for arm in (
                *([self.pool(scheduler)] if self.optimum else []),
                *(self.retrained_arm(model, scheduler) for model in self.retrained),
                *(make(anchor, scheduler) for anchor in self.anchors for make in (self.deradiff, self.weights)),
            )
        ]

    def _arm(self, name: str, model: Aligned, scheduler: str | None, lams: set[float], **policy: Any) -> Arm:
        recipe = self._recipe(anchor=model.name, anchor_beta=model.beta, scheduler=scheduler, **policy)
        return Arm(f"{name}-{model}-{scheduler or 'own'}", recipe, self._request(lams=lams))

    def _recipe(self, **changes: Any) -> Recipe:
        return Recipe(**{**dict(self.recipe), **changes})

    def _request(self, **changes: Any) -> Request:
        return Request(**{**dict(self.request), **changes})


def _lams(anchor: Aligned, betas: Iterable[float]) -> set[float]:
    return {lam_from_beta(anchor.beta, beta) for beta in betas}


def _check_unique(names: list[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"given twice: {', '.join(repeated)}; leave one out")

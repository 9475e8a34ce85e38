"""What a comparison compares: frozen, and enough to make every image of every arm again."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from deradiff.anchor.source import card_of
from deradiff.errors import AnchorError, PlanError
from deradiff.mixture import lam_from_beta
from deradiff.sweep import Plan

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class Aligned(BaseModel):
    """An aligned model and what its card says of it.

    Attributes:
        name: as the user gives it.
        beta: KL strength it was aligned at.
        seed: of its training.
        convention: what beta means.
    """

    model_config = _CONFIG
    name: str
    beta: float
    seed: int
    convention: dict[str, Any]

    @classmethod
    def read(cls, name: str, path: str) -> "Aligned":
        """The aligned model in a folder or file.

        Raises:
            AnchorError: nothing there, or a card that lacks beta, seed or beta_convention.
        """
        card = card_of(path)
        if lacking := [key for key in ("beta", "seed", "beta_convention") if key not in card]:
            raise AnchorError(
                f"the card of {name} lacks {', '.join(lacking)}; expected a local model with a deradiff.json beside "
                "it, or a LoRA with that in its metadata, which says beta, seed and beta_convention"
            )
        return cls(name=name, beta=card["beta"], seed=card["seed"], convention=card["beta_convention"])

    def __str__(self) -> str:
        return f"beta{self.beta:g}-seed{self.seed}"


class Comparison(BaseModel):
    """Anchors against models aligned from scratch, on the prompts and seeds of one plan.

    Attributes:
        anchors: each emulates every beta at lam = its beta / beta.
        scratch: models aligned from scratch, one or more (training seeds) a beta.
        schedulers: diffusers class names; None is the pipeline's own.
        plan: of the first anchor under the first scheduler; the others change its anchor, lams, scheduler and mode.
    """

    model_config = _CONFIG
    anchors: tuple[Aligned, ...]
    scratch: tuple[Aligned, ...]
    schedulers: tuple[str | None, ...]
    plan: Plan

    @classmethod
    def of(
        cls,
        anchors: Sequence[Aligned],
        scratch: Sequence[Aligned],
        schedulers: Sequence[str | None] = (None,),
        **sampling: object,
    ) -> "Comparison":
        """A comparison from aligned models and the other settings of :class:`Plan`.

        Raises:
            PlanError: fewer than two betas or prompts, one thing given twice, betas of several conventions, or a
                setting that no plan takes.
        """
        _refuse_twice([f"the scheduler {scheduler}" for scheduler in schedulers])
        _refuse_twice([f"an anchor of {anchor}" for anchor in anchors])
        _refuse_twice([f"a model from scratch of {model}" for model in scratch])
        _refuse_other_conventions([*anchors, *scratch])
        betas = {model.beta for model in scratch}
        if len(betas) < 2:
            raise PlanError(
                f"expected models from scratch at two or more betas, got {sorted(betas)}: errors are told as a share "
                "of the spread between betas"
            )
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
        return cls(anchors=tuple(anchors), scratch=tuple(scratch), schedulers=tuple(schedulers), plan=plan)

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

    def plans(self) -> dict[str, Plan]:
        """Folder name -> plan, of every arm."""
        return dict(
            arm
            for scheduler in self.schedulers
            for arm in (
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


def _refuse_other_conventions(models: Sequence[Aligned]) -> None:
    first = models[0]
    for model in models:
        keys = first.convention.keys() | model.convention.keys()
        if apart := [key for key in sorted(keys) if first.convention.get(key) != model.convention.get(key)]:
            told = "; ".join(f"{key}: {first.convention.get(key)!r}, {model.convention.get(key)!r}" for key in apart)
            raise PlanError(
                f"beta doesn't mean the same in {first.name} and {model.name} ({told}); compare models aligned under "
                "one convention"
            )

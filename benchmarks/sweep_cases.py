"""What the sweep benchmark runs: modes of the engine, and the cases in which each is measured."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sweep_pipelines import Shape

from deradiff import testbed
from deradiff.runs.cells import Request
from deradiff.runs.recipe import Recipe

DESCRIPTION = "{pipeline}, {anchor}, {scheduler}, {lams} lams, {steps} steps, guidance {guidance:g}, latents {side}²"
PROMPTS_SEED = 3000  # its captions were used for no tuning
MODES: dict[str, dict[str, Any]] = {
    "exact": {"policy": "exact"},
    "reuse 2": {"policy": "reuse", "refresh": 2},
    "reuse 3": {"policy": "reuse", "refresh": 3},
    "adaptive 2 %": {"policy": "adaptive", "target_error": 0.02},
    "adaptive 1 %": {"policy": "adaptive", "target_error": 0.01},
    "adaptive .3 %": {"policy": "adaptive", "target_error": 0.003},
    "weights": {"policy": "weights"},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sweep of lams from 0 to 2, of latents ``side`` wide and high, that is run in several modes."""

    pipeline: Shape
    anchor: str
    modes: tuple[str, ...]
    scheduler: str = "DDIMScheduler"
    lams: int = 17
    steps: int = 50
    guidance: float = 1.0
    side: int = 8
    prompts: int = 6
    seeds: int = 2
    batch_size: int = 8
    repeats: int = 3

    @property
    def request(self) -> Request:
        """Its images, the same in every mode."""
        return Request(
            prompts=testbed.prompts(self.prompts, PROMPTS_SEED),
            seeds=range(self.seeds),
            lams=torch.linspace(0, 2, self.lams).tolist(),
            guidances=[self.guidance],
        )

    def recipe(self, mode: str, anchor: Path) -> Recipe:
        """What they share in one mode."""
        return Recipe(
            model=self.pipeline,
            anchor=str(anchor),
            scheduler=self.scheduler,
            steps=self.steps,
            height=8 * self.side,
            width=8 * self.side,
            batch_size=self.batch_size,
            diagnostics=False,
            **MODES[mode],
        )


ADAPTIVE = ("exact", "adaptive 1 %", "adaptive .3 %")
FINE, FAST = "adaptive .3 %", "adaptive 1 %"
HEADLINE = Case(
    pipeline="embedded", anchor="warmth-beta0.0125-seed0", modes=("exact", "reuse 3", FAST, FINE, "weights")
)
ANCESTRAL = replace(
    HEADLINE, scheduler="EulerAncestralDiscreteScheduler", modes=("exact", "reuse 3", "adaptive 2 %", FAST)
)
GUIDED = replace(HEADLINE, guidance=3.0, modes=ADAPTIVE, prompts=2)
WIDER = (
    GUIDED,
    replace(HEADLINE, lams=33, modes=ADAPTIVE, prompts=3),
    replace(HEADLINE, anchor=testbed.DEFAULT_ANCHOR, modes=ADAPTIVE, prompts=2),
    replace(ANCESTRAL, anchor=testbed.DEFAULT_ANCHOR, prompts=2),
    replace(GUIDED, scheduler=ANCESTRAL.scheduler, modes=ANCESTRAL.modes, prompts=1),
)
GROWTH = (
    *(replace(HEADLINE, lams=lams, modes=ADAPTIVE, prompts=2) for lams in (5, 9)),
    *(replace(HEADLINE, steps=steps, modes=ADAPTIVE, prompts=2) for steps in (20, 100)),
    replace(HEADLINE, side=16, modes=ADAPTIVE, prompts=1),
)
SHAPED = Case(
    pipeline="sd15", anchor="random", modes=ADAPTIVE, lams=5, steps=20, side=16, prompts=1, batch_size=2, repeats=2
)


def cases(device: str, quick: bool) -> Iterator[tuple[Case, int]]:
    """What is run, with the divisor of the channels of Stable Diffusion's shapes."""
    if quick:
        few = {"prompts": 2, "batch_size": 4}
        yield replace(HEADLINE, modes=ADAPTIVE, **few), 1
        yield replace(ANCESTRAL, modes=ANCESTRAL.modes[:3], **few), 1
        yield replace(SHAPED, lams=5, side=8), 5
        return
    yield from ((case, 1) for case in (HEADLINE, ANCESTRAL))
    if device == "cpu":
        yield SHAPED, 2
    else:
        full = replace(SHAPED, lams=17, steps=50, guidance=7.5, side=64, prompts=8, batch_size=16)
        yield full, 1
        yield replace(full, pipeline="sdxl", side=128), 1
    yield from ((case, 1) for case in (*WIDER, *GROWTH))

"""From the options of ``deradiff sweep`` and ``search`` to a plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from deradiff.anchor.source import card_of
from deradiff.cli.common import anchor_name, own_guidance
from deradiff.cli.parsing import lams_for_betas, parse_numbers, parse_share
from deradiff.errors import PlanError
from deradiff.sweep import Journal, Plan
from deradiff.sweep.prompts import read_prompts

# Options that say nothing of the images, so that they may be given beside --resume.
OF_THE_RUN = {"rewards", "objective", "guard", "out", "resume", "shard", "list_cells", "device", "offload"}
OF_THE_SEARCH = {"risk", "kl_budget", "max_lam", "interval_width", "max_images"}


def planned(ctx: typer.Context, grid: Sequence[float] | None = None) -> Plan:
    """The plan that the options of a sweep make, or of a search, which has the lams of its grid.

    Raises:
        PlanError: names the option that is wrong and why.
    """
    given = {name: value for name, value in ctx.params.items() if name not in OF_THE_RUN | OF_THE_SEARCH}
    prompts, prompt = given.pop("prompts"), given.pop("prompt")
    column, split = given.pop("column"), given.pop("split")
    lams, betas, beta = given.pop("lams", None), given.pop("betas", None), given.pop("anchor_beta")
    guidance, quality = given.pop("guidance"), given.pop("quality", None)
    if lams is not None and betas is not None:
        raise PlanError("give --lams or --betas, not both")
    texts = [*(read_prompts(Path(prompts), column, split) if prompts else []), *(prompt or [])]
    if not texts:
        raise PlanError("no prompts: give --prompts FILE, or --prompt TEXT one or more times")
    if beta is None:
        beta = card_of(anchor_name(given["anchor"])).get("beta")
    made: dict[str, Any] = {
        "prompts": texts,
        "seeds": range(given.pop("seeds")),
        "lams": grid or _lams(lams, betas, beta),
        "anchor_beta": beta,
        "guidances": [own_guidance(given["model"])] if guidance is None else parse_numbers(guidance, "guidance"),
        "quality": None if quality is None else parse_share(quality),
    }
    return Plan.of(**made, **given)


def _lams(lams: str | None, betas: str | None, anchor_beta: float | None) -> Sequence[float]:
    return parse_numbers("0:2:9" if lams is None else lams) if betas is None else lams_for_betas(betas, anchor_beta)


def resumed(ctx: typer.Context, out: Path) -> Plan:
    """The plan of the run in a folder.

    Raises:
        PlanError: no run there, or an option given that would change its plan.
    """
    options = [name for name in ctx.params if name not in OF_THE_RUN]
    sources = {name: ctx.get_parameter_source(name) for name in options}
    given = ["--" + name.replace("_", "-") for name, source in sources.items() if source and source.name != "DEFAULT"]
    if given:
        raise PlanError(f"--resume takes the plan from {out}, so leave out {', '.join(given)}")
    return Journal.open(out).plan

"""Options that several commands take."""

from pathlib import Path
from typing import Annotated, Literal

import typer

MODELS, SAMPLING, MACHINE = "Models", "Sampling", "Machine"  # panels of the help

Model = Annotated[
    str,
    typer.Option(
        help="Pipeline to realign: a folder or hub id; 'embedded' is the one we ship.", rich_help_panel=MODELS
    ),
]
AnchorOption = Annotated[
    str,
    typer.Option(
        "--anchor",
        help="Aligned model: a folder or hub id of a checkpoint or LoRA; 'embedded', or 'embedded:NAME'. Better a "
        "strongly aligned one and lam below 1 than a weakly aligned one and lam above.",
        rich_help_panel=MODELS,
    ),
]
Component = Annotated[
    str | None, typer.Option(help="Denoiser to realign, where it can't be inferred.", rich_help_panel=MODELS)
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="diffusers scheduler class; default: the pipeline's own.", rich_help_panel=SAMPLING),
]
Steps = Annotated[int, typer.Option(help="Denoising steps.", min=1, rich_help_panel=SAMPLING)]
Guidance = Annotated[
    float | None,
    typer.Option(help="Guidance scale; default: the pipeline's, 1 for 'embedded'.", rich_help_panel=SAMPLING),
]
Height = Annotated[int | None, typer.Option(help="Pixels; default: the pipeline's.", rich_help_panel=SAMPLING)]
Width = Annotated[int | None, typer.Option(help="Pixels; default: the pipeline's.", rich_help_panel=SAMPLING)]
Dtype = Annotated[
    Literal["float32", "float16", "bfloat16"], typer.Option(help="Of the weights.", rich_help_panel=MACHINE)
]
BatchSize = Annotated[int, typer.Option(help="Images through a network at once.", min=1, rich_help_panel=MACHINE)]
Particles = Annotated[
    int,
    typer.Option(
        help="K an image, to correct what mixing step by step leaves out; K times the calls at lams between 0 and 1.",
        min=1,
        rich_help_panel=SAMPLING,
    ),
]
Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, mps.", rich_help_panel=MACHINE)]
Offload = Annotated[
    bool, typer.Option("--offload", help="Keep networks on the CPU while they aren't called.", rich_help_panel=MACHINE)
]
Run = Annotated[Path, typer.Argument(help="A run folder made by deradiff sweep, search or demo.")]
Objective = Annotated[str, typer.Option(help="Reward to raise; several, a,b, for their Pareto set.")]
Guard = Annotated[
    str | None,
    typer.Option(
        help="Rewards that must be shown to hold, and what each may lose: hps:-0.002,clip:-1%,edges:±10%; a name alone "
        "may lose the smallest change that matters."
    ),
]
Risk = Annotated[
    float, typer.Option(help="Chance accepted that a guard's true loss exceeds its margin, up to 0.5 (best estimate).")
]
Prefer = Annotated[
    Literal["smallest", "best"],
    typer.Option(help="Among lams that hold and are within one standard error of the best."),
]
KLBudget = Annotated[float | None, typer.Option(help="Largest mean path KL to the reference, in nats.")]
ChosenGuidance = Annotated[
    float | None, typer.Option(help="Guidance scale to look at, where several were swept; default: each in turn.")
]

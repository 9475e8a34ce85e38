"""Options that several commands take."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deradiff.errors import ConfigError, abbreviate

WHAT, MODELS, SAMPLING, MACHINE = "What to sample", "Models", "Sampling", "Machine"  # panels of the help
CLUSTER = "A cluster"
HUB = "The hub"


def check_out(path: Path) -> Path:
    """Check that a folder to write to can be looked for at all.

    Raises:
        ConfigError: its path is too long, or a link to itself.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):  # it is made, or what is in its way is named later
        pass
    except OSError as error:
        raise ConfigError(f"--out {abbreviate(path)} can't be a folder ({error.strerror}); give another one") from error
    return path


Model = Annotated[
    str,
    typer.Option(
        help="Pipeline to realign: a folder, a .safetensors checkpoint (configs beside it) or hub id; 'embedded' is "
        "the one we ship.",
        rich_help_panel=MODELS,
    ),
]
Subfolder = Annotated[
    str | None,
    typer.Option("--subfolder", help="Of the model's folder or repository.", rich_help_panel=MODELS),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="Branch, tag or commit of the model on the hub.", rich_help_panel=MODELS),
]
Variant = Annotated[
    str | None, typer.Option("--variant", help="Of the model's weights, such as fp16.", rich_help_panel=MODELS)
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
AnchorSubfolder = Annotated[
    str | None, typer.Option(help="Of the anchor's folder or repository.", rich_help_panel=MODELS)
]
AnchorRevision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of the anchor on the hub.", rich_help_panel=MODELS)
]
AnchorVariant = Annotated[
    str | None, typer.Option(help="Of the anchor's weights, such as fp16.", rich_help_panel=MODELS)
]
AnchorWeightName = Annotated[
    str | None,
    typer.Option(help="The anchor's .safetensors file, where there are several.", rich_help_panel=MODELS),
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
    Literal["auto", "float32", "float16", "bfloat16"],
    typer.Option(help="Of the weights; auto is what the model's files hold.", rich_help_panel=MACHINE),
]
ScorerDtype = Annotated[
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
Device = Annotated[
    str, typer.Option(help="Where to run: cpu, cuda, mps; auto takes the best.", rich_help_panel=MACHINE)
]
Offload = Annotated[
    bool, typer.Option("--offload", help="Keep networks on the CPU while they aren't called.", rich_help_panel=MACHINE)
]
COUNT_OR_LIST = "COUNT|LIST"  # what a number alone is a count in
Seeds = Annotated[
    str,
    typer.Option(
        help="How many, as in 4 (seeds 0 to 3); or which: 0,7,42, or 7, for one.",
        metavar=COUNT_OR_LIST,
        rich_help_panel=WHAT,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Between the fields of a .csv file, such as ';' or tab; default: a comma.", rich_help_panel=WHAT),
]
Run = Annotated[Path, typer.Argument(help="A run folder made by deradiff sweep, search or demo.")]
Objective = Annotated[
    str,
    typer.Option(help="Reward to raise; several, a,b, for their Pareto set; or votes, for what people prefer."),
]
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
    Literal["smallest", "best"] | None,
    typer.Option(
        help="Among lams that hold and are within one standard error of the best; default: the smallest, of votes the "
        "best."
    ),
]
KLBudget = Annotated[float | None, typer.Option(help="Largest mean path KL to the reference, in nats.")]
ChosenGuidance = Annotated[
    float | None, typer.Option(help="Guidance scale to look at, where several were swept; default: each in turn.")
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        metavar="ORG/NAME",
        help="Push weights and card to this repository, made if missing, by the token of HF_TOKEN or hf auth login.",
        rich_help_panel=HUB,
    ),
]
Private = Annotated[
    bool, typer.Option("--private", help="With --push-to-hub: a private repository only.", rich_help_panel=HUB)
]


def prepare_push(push_to_hub: str | None, *, private: bool) -> None:
    """Make or check the repository to push to, before long work.

    Raises:
        ConfigError: --private alone.
        HubError: as `deradiff.hub.create_repository`.
    """
    if push_to_hub is None:
        if private:
            raise ConfigError("--private goes with --push-to-hub ORG/NAME; give both, or leave it out")
        return
    from deradiff.hub import create_repository

    create_repository(push_to_hub, private=private)


Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Work on the Ray cluster at this address; alone, or 'local': the one that RAY_ADDRESS names or that "
        "runs on this machine, else a new one.",
        rich_help_panel=CLUSTER,
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        help="Workers of --ray; default: as many as its GPUs, else CPUs, hold.", min=1, rich_help_panel=CLUSTER
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        help="Of --ray; a fraction shares a GPU; default: 1 where there are any.", min=0, rich_help_panel=CLUSTER
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Of --ray: URL where workers that don't see --out put images, such as s3://bucket/folder; default: they "
        "come back through Ray.",
        rich_help_panel=CLUSTER,
    ),
]
RetryQuarantined = Annotated[
    bool,
    typer.Option("--retry-quarantined", help="Of --ray: try again what failed too often.", rich_help_panel=CLUSTER),
]

"""What commands share: options, names of embedded models, the progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

EMBEDDED = "embedded"

Model = Annotated[str, typer.Option(help="Pipeline to realign: a folder or hub id; 'embedded' is the one we ship.")]
AnchorOption = Annotated[
    str,
    typer.Option(
        "--anchor", help="Aligned model: a folder or hub id of a checkpoint or LoRA; 'embedded', or 'embedded:NAME'."
    ),
]
Component = Annotated[str | None, typer.Option(help="Denoiser to realign, where it can't be told.")]
Scheduler = Annotated[str | None, typer.Option(help="diffusers scheduler class; default: the pipeline's own.")]
Steps = Annotated[int, typer.Option(help="Denoising steps.", min=1)]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale; default: the pipeline's, 1 for 'embedded'.")]
Height = Annotated[int | None, typer.Option(help="Pixels; default: the pipeline's.")]
Width = Annotated[int | None, typer.Option(help="Pixels; default: the pipeline's.")]
Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, mps.")]
Half = Annotated[bool, typer.Option("--half", help="Load weights in float16.")]
Run = Annotated[Path, typer.Argument(help="A run folder made by deradiff sweep or deradiff demo.")]
Objective = Annotated[str, typer.Option(help="Reward to raise.")]
Guard = Annotated[str | None, typer.Option(help="Reward that must not fall below the reference.")]


class ImageRate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The speed over the last while."""
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s", style="progress.data.speed")


def model_path(name: str) -> str:
    """The pipeline's folder or hub id."""
    from deradiff import testbed

    return str(testbed.pipeline_path()) if name == EMBEDDED else name


def anchor_name(name: str) -> str:
    """The anchor's folder or hub id."""
    from deradiff import testbed

    kind, _, own = name.partition(":")
    if kind != EMBEDDED:
        return name
    return str(testbed.anchor_path(own) if own else testbed.anchor_path())


def guidance_for(model: str, guidance: float | None) -> float | None:
    """The embedded pipeline needs no guidance; other pipelines keep their default."""
    return 1.0 if guidance is None and model == EMBEDDED else guidance


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left, on stderr."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        ImageRate(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(label, total=total)

    def advance(count: int) -> None:
        bar.start()  # shown once there is progress, and not above an error in setting up
        bar.advance(task, count)

    try:
        yield advance
    finally:
        bar.stop()


def hush() -> None:
    """Keep loading bars and advice of the libraries below off the terminal; errors still come through."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()

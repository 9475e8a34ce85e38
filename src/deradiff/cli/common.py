"""What commands share: text for the terminal, the progress bar, quiet libraries."""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from deradiff.errors import PartialScoresError, printable
from deradiff.testbed import EMBEDDED

ON_THIS_MACHINE = "local"  # of --ray, which stands for it alone too


def with_ray_address(words: Sequence[str]) -> list[str]:
    """The words of a command line, with the address that a ``--ray`` without one stands for."""
    following = [*words[1:], "--"]
    added = [
        [word, ON_THIS_MACHINE] if word == "--ray" and after.startswith("-") else [word]
        for word, after in zip(words, following, strict=False)
    ]
    return [word for group in added for word in group]


def echo(text: str, *, err: bool = False) -> None:
    """Print a line of `printable` text."""
    typer.echo(printable(text), err=err)


def plain(text: str) -> Text:
    """`printable` text for rich, which reads no markup in it."""
    return Text(printable(text))


def log_printable() -> None:
    """Let warnings of the package come to the terminal as `printable` text."""
    logger = logging.getLogger("deradiff")
    if not any(isinstance(handler, _Echo) for handler in logger.handlers):
        logger.addHandler(_Echo())


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        echo(self.format(record), err=True)


class Status(ProgressColumn):
    """What a function says each time that it is shown."""

    def __init__(self, status: Callable[[], str]) -> None:
        self._status = status
        super().__init__()

    def render(self, task: Task) -> Text:
        """What it says now."""
        return Text(self._status())


class ImageRate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        """The speed over the last while."""
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s", style="progress.data.speed")


def push_folder(folder: Path, name: str | None) -> None:
    """Push a folder to the hub and say where it is; None pushes nothing.

    Raises:
        HubError: as `deradiff.hub.push`.
    """
    if name is not None:
        from deradiff.hub import push

        echo(f"pushed to {push(folder, name)}")


def own_guidance(model: str) -> float | None:
    """The embedded pipeline needs no guidance; other pipelines keep their default."""
    return 1.0 if model == EMBEDDED else None


def listed(text: str) -> list[str]:
    """Names separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def progress(label: str, total: int, status: Callable[[], str] = lambda: "") -> Generator[Callable[[int], None]]:
    """A bar with rate, time left and what ``status`` says, on stderr."""
    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        ImageRate(),
        TextColumn("left"),
        TimeRemainingColumn(),
        Status(status),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(printable(label), total=total)

    def advance(count: int) -> None:
        bar.start()  # shown once there is progress, and not above an error in setting up
        bar.advance(task, count)

    try:
        yield advance
    finally:
        if bar.live.is_started:  # else it would print an empty line
            bar.stop()


@contextmanager
def scoring_each(
    rewards: Sequence[str], count: int, score: Callable[[str, Callable[[int], None]], None]
) -> Generator[None]:
    """Score by each reward with a progress bar; then, after the block, say on which prompts some of them failed.

    Args:
        rewards: as ``load_reward`` takes them.
        count: images to score.
        score: by a reward's name, called with what advances the bar.

    Raises:
        PartialScoresError: after the block: a reward failed on some images.
    """
    errors = list[PartialScoresError]()
    for reward in rewards:
        with progress(reward, count) as advance:
            try:
                score(reward, advance)
            except PartialScoresError as error:
                errors.append(error)
    yield
    if errors:
        raise PartialScoresError("\n".join(map(str, errors)), ())


def hush() -> None:
    """Keep loading bars and advice of the libraries below off the terminal; errors still come through."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} TB"

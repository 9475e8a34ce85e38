"""Fragments of the page: images as data URIs, so that no file is served, and text that is only ever text."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL.Image import Image

from deradiff.app.sweeps import SweepState
from deradiff.app.turns import Job
from deradiff.errors import RunFolderError, printable
from deradiff.reading import decode_image, read_whole
from deradiff.results import Results
from deradiff.writing import encode_png

THUMBNAIL = 192  # px
SMALL = 128  # px: up to this size pixels are shown crisp
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})  # what gradio's templates read


def text(value: object) -> str:
    """Text as html, also where a template reads it."""
    return escape(printable(str(value))).translate(_TEMPLATE)


def data_uri(png: bytes) -> str:
    """A PNG image as the address of an image."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


@lru_cache(maxsize=2048)
def thumbnail(path: Path, folder: Path) -> str:
    """A run's image, reduced, as the address of an image.

    Raises:
        RunFolderError: it is damaged, or a link out of the folder.
    """
    image = decode_image(read_whole(path, "the image", inside=folder), f"the image {path}", RunFolderError)
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_uri(encode_png(image))


def figure(image: Image, caption: str, *, kind: str = "") -> str:
    """An image with a caption below."""
    crisp = " crisp" if max(image.size) <= SMALL else ""
    label = text(caption)
    return (
        f'<figure class="{kind}{crisp}"><img src="{data_uri(encode_png(image))}" alt="{label}" '
        f'width="{image.width}" height="{image.height}"><figcaption>{label}</figcaption></figure>'
    )


def figures(parts: Iterable[str]) -> str:
    """Figures side by side."""
    return f'<div class="figures">{"".join(parts)}</div>'


def empty(words: str) -> str:
    """Where an image will be."""
    return f'<div class="empty"><p>{text(words)}</p></div>'


def paragraphs(sentences: Sequence[str]) -> str:
    """Sentences, the first one as the answer."""
    lines = [f"<p>{text(sentence)}</p>" for sentence in sentences]
    return f'<div class="answer">{"".join(lines)}</div>'


def progress(job: Job, what: str = "Drawing") -> str:
    """How far a job is."""
    if job.ahead:
        others = f"{job.ahead} other{'s' * (job.ahead != 1)}"
        return _bar(0, f"Waiting for {others} before you")
    if not job.total:
        return _bar(0, f"{what} begins")
    return _bar(job.done / job.total, f"{what}: step {job.done} of {job.total}")


def sweep_progress(state: SweepState) -> str:
    """How far the sweep is, or how it ended."""
    share = state.done / state.total if state.total else 0
    count = f"{state.done:,} of {state.total:,}"
    words = {
        "idle": "Nothing is running",
        "sampling": f"Sampling: {count} images",
        "scoring": f"Scoring by {state.what}: {count} images",
        "done": "Done",
        "stopped": f"Stopped after {state.done:,} images, which are kept; start again to go on",
        "failed": f"Failed: {state.problem}",
    }[state.phase]
    return _bar(1 if state.phase == "done" else min(1, share), words)


def status(words: str = "") -> str:
    """A line where progress would be."""
    return _bar(None, words)


def problem(words: str) -> str:
    """What went wrong, where progress would be."""
    return f'<div class="status problem"><p role="alert">{text(words)}</p></div>'


def _bar(share: float | None, words: str) -> str:
    bar = "" if share is None else f'<div class="bar" aria-hidden="true"><i style="width:{share:.0%}"></i></div>'
    return f'<div class="status">{bar}<p role="status">{text(words)}</p></div>'


def grid(results: Results, folder: Path, rows: Sequence[int], seed: int) -> str:
    """Images of some prompts along lam at one seed; gaps where there is none yet."""
    head = "".join(f'<th scope="col">lam {lam:g}</th>' for lam in results.lams)
    body = "".join(_row(results, folder, row, seed) for row in rows)
    return (
        f'<div class="grid" tabindex="0" role="region" aria-label="Images by prompt and lam"><table><thead><tr>'
        f'<th scope="col">prompt</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _row(results: Results, folder: Path, row: int, seed: int) -> str:
    prompt = results.prompts[row]
    cells = []
    for column, lam in enumerate(results.lams):
        file = results.images[row, seed, column]
        if not file:
            cells.append('<td><div class="gap">not yet</div></td>')
            continue
        source = thumbnail(Path(file), folder)
        cells.append(f'<td><img src="{source}" alt="{text(prompt)}, lam {lam:g}"></td>')
    return f'<tr><th scope="row">{text(prompt)}</th>{"".join(cells)}</tr>'


def score_table(results: Results) -> str:
    """Mean scores along lam."""
    import numpy as np

    if not results.scores:
        return "<p>No scores yet.</p>"
    head = "".join(f'<th scope="col">lam {lam:g}</th>' for lam in results.lams)
    rows = []
    for name, table in results.scores.items():
        counts = np.isfinite(table).sum(axis=(0, 1))
        means = np.nansum(table, axis=(0, 1)) / np.maximum(counts, 1)
        cells = "".join(f"<td>{mean:.3g}</td>" if n else "<td></td>" for mean, n in zip(means, counts, strict=True))
        rows.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    return (
        '<div class="grid" tabindex="0" role="region" aria-label="Mean scores by lam"><table class="scores"><thead><tr>'
        f'<th scope="col">mean score</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def report_frame(html: str) -> str:
    """The report in a frame of its own, where its scripts reach nothing of this page."""
    document = escape(html).translate(_TEMPLATE)
    return f'<iframe class="report" title="The report" sandbox="allow-scripts" srcdoc="{document}"></iframe>'

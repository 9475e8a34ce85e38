"""The report: one html file that contains plotly, the figures and the images, and opens offline."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deradiff.analysis import messages
from deradiff.analysis.recommend import Recommendation
from deradiff.analysis.reweight import Reweighted, reweight, unsupported_reason
from deradiff.errors import ResultsError
from deradiff.reading import decode_image, read_whole
from deradiff.report import figures
from deradiff.report.template import render
from deradiff.report.votes import vote_section
from deradiff.results import Results, as_results
from deradiff.writing import write_whole

SMALL = 128  # px: images up to this size are embedded losslessly and shown with crisp pixels
LARGEST = 320  # px: larger images are reduced to this size
MAX_IMAGES = 1000  # embedded images: a page of about 20 MB at most


@dataclass(frozen=True, kw_only=True)
class Column:
    """One lam of the image grid."""

    lam: float
    beta: str
    colour: str
    chosen: bool
    verdict: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """One embedded image: its data URI, its embedded size in px, and a caption with its scores."""

    uri: str
    width: int
    height: int
    caption: str

    @property
    def small(self) -> bool:
        """Whether the page shows it with crisp pixels."""
        return max(self.width, self.height) <= SMALL


class Run(Protocol):
    """The part of a `deradiff.Run` that a report needs."""

    folder: Path

    def results(self) -> Results:
        """The table of results."""
        ...


def write_report(
    source: Results | Run, answer: Recommendation, path: str | Path | None = None, *, at: str | None = None
) -> Path:
    """Write one self-contained html page about a run: the recommended lam, the images, the curves.

    Args:
        source: a run, or a table of results; the page shows gaps as gaps.
        answer: the result of `deradiff.recommend`.
        path: the html file to write; missing folders are created. By default ``report.html`` in the run's folder.
        at: text that distinguishes this page from others of the run, such as "guidance 7.5".

    Returns:
        The path of the page.

    Raises:
        ResultsError: an image can't be read, the page can't be written, a table is given without a path, or an argument
            has another type.
    """
    results = as_results(source)
    if not isinstance(answer, Recommendation):
        raise ResultsError(f"answer: expected what deradiff.recommend returns, got {type(answer).__name__}")
    if path is None:
        if isinstance(source, Results):
            raise ResultsError("a table of results has no folder; give the path of the page")
        path = source.folder / "report.html"
    shown = _shown_lams(results, answer)
    page = render(
        "page.html",
        {
            "results": results,
            "at": at,
            "answer": answer,
            "messages": messages,
            "alarms": [messages.alarm_sentence(alarm, answer.prompts) for alarm in answer.raised_alarms],
            "facts": _facts(results),
            "columns": _columns(results, answer, shown),
            "rows": list(_rows(results, shown)),
            "shown": shown,
            **_figures(results, answer),
        },
    )
    path = Path(path)
    write_whole(path, page, ResultsError)
    return path


def _facts(results: Results) -> dict[str, str]:
    sampled = _sampled_images(results)
    prompts, seeds, lams = (int(sampled.any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1)))
    counts = ((prompts, "prompt"), (seeds, "seed"), (lams, "lam"))
    product = " × ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts)
    count, whole = int(sampled.sum()), prompts * seeds * lams
    images = f"{count:,} ({product})" if count == whole else f"{count:,} of the {whole:,} of {product}"
    if results.missing:
        images += f"; {results.missing:,} requested images are missing"
    beta = "unknown" if results.anchor_beta is None else f"{results.anchor_beta:g}"
    return {"Images": images, "Anchor's beta": beta, **results.details}


def _sampled_images(results: Results) -> NDArray[np.bool_]:
    """Whether each image was sampled: it has a file or a score."""
    files = np.array(results.images != "", dtype=bool)
    return np.any([files, *(np.isfinite(table) for table in results.scores.values())], axis=0)


def _shown_lams(results: Results, answer: Recommendation) -> list[int]:
    """Indices of the sampled lams and the recommended one."""
    sampled = np.flatnonzero(_sampled_images(results).any(axis=(0, 1))).tolist()
    return sorted({*sampled, answer.index})


def _columns(results: Results, answer: Recommendation, shown: list[int]) -> list[Column]:
    colours = figures.lam_colours(results.lams)
    betas = figures.beta_labels(results, results.lams)
    return [
        Column(
            lam=lam,
            beta=beta,
            colour=colours[index],
            chosen=lam == answer.lam,
            verdict=answer.verdicts[index] if answer.constraints and lam else "",
            reason=messages.verdict_reason(answer, index),
        )
        for index, (lam, beta) in enumerate(zip(results.lams, betas, strict=True))
        if index in shown
    ]


def _rows(results: Results, shown: list[int]) -> Iterator[tuple[str, list[list[EmbeddedImage | None]]]]:
    """For each prompt its text and, for each lam, its images by seed, None for gaps; the first `MAX_IMAGES` images."""
    count, files = 0, np.array(results.images != "", dtype=bool)
    for p in np.flatnonzero(files.any(axis=(1, 2))).tolist():
        count += int(files[p].sum())
        if count > MAX_IMAGES and count > int(files[p].sum()):
            return
        seeds = range(len(results.seeds))
        yield str(results.prompts[p]), [[embed_image(results, p, s, index) for s in seeds] for index in shown]


def embed_image(results: Results, prompt: int, seed: int, lam: int) -> EmbeddedImage | None:
    """Embed one image, by its indices; None if it wasn't sampled.

    Raises:
        ResultsError: the image can't be read.
    """
    index = (prompt, seed, lam)
    if not results.images[index]:
        return None
    lines = [results.prompts[prompt], f"seed {results.seeds[seed]}, lam {results.lams[lam]:g}"]
    lines += [f"{reward} {table[index]:.3g}" for reward, table in results.scores.items() if np.isfinite(table[index])]
    if results.path_kl is not None and np.isfinite(results.path_kl[index]):
        lines.append(f"path KL {results.path_kl[index]:.3g} nats")
    reward = results.paths.get("implicit_reward")
    if reward is not None and results.lams[lam] < 1:  # at the anchor and beyond it is uninformative
        lines.append(f"implicit reward {reward[index]:.3g} nats")
    uri, (width, height) = _data_uri(results.image(*index), results.folder)
    return EmbeddedImage(uri=uri, width=width, height=height, caption="\n".join(lines))


def _data_uri(file: Path, folder: Path | None) -> tuple[str, tuple[int, int]]:
    """An image as WebP in a data URI, and its size; lossless if small, else reduced."""
    content = read_whole(file, "the image", ResultsError, inside=folder)
    image = decode_image(content, f"the image {file}", ResultsError)
    small, pixels = max(image.size) <= SMALL, image.convert("RGB")
    pixels.thumbnail((LARGEST, LARGEST))
    buffer = BytesIO()
    pixels.save(buffer, "WEBP", lossless=small, quality=85, method=4)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}", pixels.size


def _figures(results: Results, answer: Recommendation) -> dict[str, object]:
    """The figures' specs in JSON by their names in the template; objectives and guards come first."""
    curves, objective = answer.curves, answer.criteria.objectives[0]
    reweighted: dict[str, Reweighted] = (
        {} if unsupported_reason(results) else {name: reweight(results, name) for name in results.scores}
    )
    sampled: list[bool] = np.asarray(_sampled_images(results).any(axis=(0, 1))).tolist()
    by_lam = {
        name: figures.reward_against_lam(results, curve, sampled, chosen=answer.lam, reweighted=reweighted.get(name))
        for name, curve in curves.items()
    }
    by_kl = {
        name: figures.reward_against_kl(results, curve, sampled, chosen=answer.lam, reweighted=reweighted.get(name))
        for name, curve in curves.items()
    }
    names = list(answer.criteria.guard_names)
    names += sorted({alarm.reward for alarm in answer.raised_alarms if alarm.objective == objective} - set(names))
    against = {
        name: figures.guard_against_objective(curves[objective], curves[name], sampled, chosen=answer.lam)
        for name in names
    }
    return {
        "by_lam": {name: figure.to_json() for name, figure in by_lam.items()},
        "by_kl": {name: figure.to_json() for name, figure in by_kl.items() if figure is not None},
        "against": {name: figure.to_json() for name, figure in against.items()},
        "reweighted": reweighted.get(objective),
        "from_lams": ", ".join(f"{lam:g}" for lam in reweighted[objective].sampled) if objective in reweighted else "",
        "trusted_range": figures.trusted_range(reweighted[objective]).to_json() if objective in reweighted else None,
        "votes": vote_section(results, answer.votes),
        "particles": list(_particles(results)),
    }


def _particles(results: Results) -> Iterator[tuple[float, float, float]]:
    """Each lam with particles, with means of the effective sample size and of the number of ancestors."""
    if {"ess", "ancestors"} <= set(results.paths):
        for index, lam in enumerate(results.lams):
            ess, ancestors = (results.paths[name][:, :, index] for name in ("ess", "ancestors"))
            if np.isfinite(ess).any():
                yield lam, float(np.nanmean(ess)), float(np.nanmean(ancestors))

"""Assembles the report: one html file with plotly, the figures and every image inside; it opens offline."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from plotly.offline import get_plotlyjs

from deradiff.analysis import messages
from deradiff.analysis.recommend import Recommendation
from deradiff.analysis.reweight import Reweighted, reweight, unsupported_reason
from deradiff.errors import ResultsError
from deradiff.io import write_whole
from deradiff.report import figures
from deradiff.results import Results, as_results

SMALL = 128  # px: images up to this size are kept exactly and drawn with crisp pixels
LARGEST = 320  # px: larger images are embedded at this size
MOST = 1000  # images embedded: a page of about 20 MB at most


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
class Picture:
    """One embedded image: its data URI, its size in px as embedded, and its scores in words."""

    uri: str
    width: int
    height: int
    caption: str

    @property
    def small(self) -> bool:
        """Whether it is drawn with crisp pixels."""
        return max(self.width, self.height) <= SMALL


class Run(Protocol):
    """What a `deradiff.Run` tells of itself."""

    folder: Path

    def results(self) -> Results:
        """Its table."""
        ...


def write_report(
    source: Results | Run, answer: Recommendation, path: str | Path | None = None, *, at: str | None = None
) -> Path:
    """Write one self-contained html page on a run: the recommended lam, the images, the curves.

    Args:
        source: a run, or a table of results; gaps in it are drawn as gaps.
        answer: what `deradiff.recommend` says of it.
        path: the html file to write; its folders are made. By default ``report.html`` in the run's folder.
        at: what tells this page from the others of its run, such as "guidance 7.5".

    Returns:
        The path written.

    Raises:
        ResultsError: an image that can't be read, a table without a path to write to, or arguments of another type.
    """
    results = as_results(source)
    if not isinstance(answer, Recommendation):
        raise ResultsError(f"answer: expected what deradiff.recommend returns, got {type(answer).__name__}")
    if path is None:
        if isinstance(source, Results):
            raise ResultsError("a table has no folder of its own; give the path of the page")
        path = source.folder / "report.html"
    shown = _shown_lams(results, answer)
    house = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=house, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.get_template("page.html").render(
        results=results,
        at=at,
        answer=answer,
        messages=messages,
        alarms=[messages.alarm_sentence(alarm, answer.prompts) for alarm in answer.raised_alarms],
        facts=_facts(results),
        columns=_columns(results, answer, shown),
        rows=list(_rows(results, shown)),
        shown=shown,
        plotly=Markup(get_plotlyjs()),
        **_figures(results, answer),
    )
    path = Path(path)
    write_whole(path, page.encode(), ResultsError)
    return path


def _facts(results: Results) -> dict[str, str]:
    there = _there(results)
    prompts, seeds, lams = (int(there.any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1)))
    counts = ((prompts, "prompt"), (seeds, "seed"), (lams, "lam"))
    product = " × ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts)
    count, whole = int(there.sum()), prompts * seeds * lams
    images = f"{count:,} ({product})" if count == whole else f"{count:,} of the {whole:,} of {product}"
    if results.missing:
        images += f"; {results.missing:,} more were asked for and aren't there yet"
    beta = "unknown" if results.anchor_beta is None else f"{results.anchor_beta:g}"
    return {"Images": images, "Anchor's beta": beta, **results.details}


def _there(results: Results) -> NDArray[np.bool_]:
    """Which images were sampled: there is a file, or a score."""
    files = np.array(results.images != "", dtype=bool)
    return np.any([files, *(np.isfinite(table) for table in results.scores.values())], axis=0)


def _shown_lams(results: Results, answer: Recommendation) -> list[int]:
    """Indices of the lams that were sampled, and of the recommended one."""
    sampled = np.flatnonzero(_there(results).any(axis=(0, 1))).tolist()
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


def _rows(results: Results, shown: list[int]) -> Iterator[tuple[str, list[list[Picture | None]]]]:
    """For each prompt its text and, for each lam, its pictures by seed, None for gaps; the first `MOST` pictures."""
    count, files = 0, np.array(results.images != "", dtype=bool)
    for p in np.flatnonzero(files.any(axis=(1, 2))).tolist():
        count += int(files[p].sum())
        if count > MOST and count > int(files[p].sum()):
            return
        seeds = range(len(results.seeds))
        yield str(results.prompts[p]), [[picture(results, p, s, index) for s in seeds] for index in shown]


def picture(results: Results, prompt: int, seed: int, lam: int) -> Picture | None:
    """One image, by its indices; None where there is none.

    Raises:
        ResultsError: it can't be read.
    """
    place = (prompt, seed, lam)
    if not results.images[place]:
        return None
    lines = [results.prompts[prompt], f"seed {results.seeds[seed]}, lam {results.lams[lam]:g}"]
    lines += [f"{reward} {table[place]:.3g}" for reward, table in results.scores.items() if np.isfinite(table[place])]
    if results.path_kl is not None and np.isfinite(results.path_kl[place]):
        lines.append(f"path KL {results.path_kl[place]:.3g} nats")
    reward = results.paths.get("implicit_reward")
    if reward is not None and results.lams[lam] < 1:  # at the anchor and beyond it says nothing of the reward
        lines.append(f"implicit reward {reward[place]:.3g} nats")
    uri, (width, height) = _data_uri(results.image(*place))
    return Picture(uri=uri, width=width, height=height, caption="\n".join(lines))


def _data_uri(file: Path) -> tuple[str, tuple[int, int]]:
    """An image as WebP in a data URI, and its size: lossless where it is small, else reduced."""
    try:
        with Image.open(file) as image:
            small = max(image.size) <= SMALL
            pixels = image.convert("RGB")
    except OSError as error:
        raise ResultsError(f"image {file} can't be read ({error}); keep a sweep's images beside its table") from error
    pixels.thumbnail((LARGEST, LARGEST))
    buffer = BytesIO()
    pixels.save(buffer, "WEBP", lossless=small, quality=85, method=4)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}", pixels.size


def _figures(results: Results, answer: Recommendation) -> dict[str, object]:
    """The figures' specs in JSON, by their names in the template; the objectives and the guards come first."""
    curves, objective = answer.curves, answer.criteria.objectives[0]
    told: dict[str, Reweighted] = (
        {} if unsupported_reason(results) else {name: reweight(results, name) for name in curves}
    )
    sampled: list[bool] = np.asarray(_there(results).any(axis=(0, 1))).tolist()
    by_lam = {
        name: figures.reward_against_lam(results, curve, sampled, chosen=answer.lam, told=told.get(name))
        for name, curve in curves.items()
    }
    by_kl = {
        name: figures.reward_against_kl(results, curve, sampled, chosen=answer.lam, told=told.get(name))
        for name, curve in curves.items()
    }
    held = list(answer.criteria.guard_names)
    held += sorted({alarm.reward for alarm in answer.raised_alarms if alarm.objective == objective} - set(held))
    against = {
        name: figures.guard_against_objective(curves[objective], curves[name], sampled, chosen=answer.lam)
        for name in held
    }
    return {
        "by_lam": {name: figure.to_json() for name, figure in by_lam.items()},
        "by_kl": {name: figure.to_json() for name, figure in by_kl.items() if figure is not None},
        "against": {name: figure.to_json() for name, figure in against.items()},
        "told": told.get(objective),
        "from_lams": ", ".join(f"{lam:g}" for lam in told[objective].sampled) if told else "",
        "trusted_range": figures.trusted_range(told[objective]).to_json() if told else None,
        "particles": list(_particles(results)),
    }


def _particles(results: Results) -> Iterator[tuple[float, float, float]]:
    """Each lam that particles corrected, with the mean effective sample size and number of distinct ancestors."""
    if {"ess", "ancestors"} <= set(results.paths):
        for place, lam in enumerate(results.lams):
            ess, ancestors = (results.paths[name][:, :, place] for name in ("ess", "ancestors"))
            if np.isfinite(ess).any():
                yield lam, float(np.nanmean(ess)), float(np.nanmean(ancestors))

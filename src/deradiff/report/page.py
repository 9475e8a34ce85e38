"""Assembles the report: one html file with plotly, the figures and every image inside; it opens offline."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from deradiff.analysis import messages
from deradiff.analysis.recommend import Recommendation
from deradiff.analysis.reweight import Reweighted, obstacle, reweight
from deradiff.errors import ResultsError
from deradiff.report import figures
from deradiff.results import Results

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


def write_report(results: Results, answer: Recommendation, path: str | Path, *, at: str | None = None) -> Path:
    """Write one self-contained html page on a sweep: the recommended lam, the images, the curves.

    Args:
        results: of a sweep whose images have files.
        answer: what `deradiff.recommend` says of them.
        path: the html file to write; its folders are made.
        at: what tells this page from the others of its run, such as "guidance 7.5".

    Returns:
        The path written.

    Raises:
        ResultsError: an image that can't be read.
    """
    house = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=house, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.get_template("page.html").render(
        results=results,
        at=at,
        answer=answer,
        messages=messages,
        alarms=[messages.alarm_sentence(alarm, answer.prompts) for alarm in answer.raised_alarms],
        facts=_facts(results),
        columns=_columns(results, answer),
        rows=list(_rows(results)),
        plotly=Markup(get_plotlyjs()),
        **_figures(results, answer),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _facts(results: Results) -> dict[str, str]:
    product = f"{len(results.prompts)} prompts × {len(results.seeds)} seeds × {len(results.lams)} lams"
    beta = "unknown" if results.anchor_beta is None else f"{results.anchor_beta:g}"
    return {"Images": f"{np.prod(results.shape)} ({product})", "Anchor's beta": beta, **results.details}


def _columns(results: Results, answer: Recommendation) -> list[Column]:
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
    ]


def _rows(results: Results) -> Iterator[tuple[str, list[list[Picture]]]]:
    """For each prompt its text and, for each lam, its pictures by seed; the first prompts, where there are many."""
    count = max(1, MOST // (len(results.seeds) * len(results.lams)))
    for p, prompt in enumerate(results.prompts[:count]):
        seeds = range(len(results.seeds))
        yield prompt, [[_picture(results, p, s, i) for s in seeds] for i in range(len(results.lams))]


def _picture(results: Results, prompt: int, seed: int, lam: int) -> Picture:
    place = (prompt, seed, lam)
    lines = [results.prompts[prompt], f"seed {results.seeds[seed]}, lam {results.lams[lam]:g}"]
    lines += [f"{reward} {table[place]:.3g}" for reward, table in results.scores.items()]
    if results.path_kl is not None:
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
            picture = image.convert("RGB")
    except OSError as error:
        raise ResultsError(f"image {file} can't be read ({error}); keep a sweep's images beside its table") from error
    picture.thumbnail((LARGEST, LARGEST))
    buffer = BytesIO()
    picture.save(buffer, "WEBP", lossless=small, quality=85, method=4)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}", picture.size


def _figures(results: Results, answer: Recommendation) -> dict[str, object]:
    """The figures' specs in JSON, by their names in the template; the objectives and the guards come first."""
    curves, objective = answer.curves, answer.criteria.objectives[0]
    told: dict[str, Reweighted] = {} if obstacle(results) else {name: reweight(results, name) for name in curves}
    by_lam = {
        name: figures.reward_against_lam(results, curve, chosen=answer.lam, told=told.get(name))
        for name, curve in curves.items()
    }
    by_kl = {
        name: figures.reward_against_kl(results, curve, chosen=answer.lam, told=told.get(name))
        for name, curve in curves.items()
    }
    held = list(answer.criteria.guard_names)
    held += sorted({alarm.reward for alarm in answer.raised_alarms if alarm.objective == objective} - set(held))
    against = {
        name: figures.guard_against_objective(curves[objective], curves[name], chosen=answer.lam) for name in held
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
    if {"ess", "distinct"} <= set(results.paths):
        for place, lam in enumerate(results.lams):
            ess, distinct = (results.paths[name][:, :, place] for name in ("ess", "distinct"))
            if np.isfinite(ess).all():
                yield lam, float(ess.mean()), float(distinct.mean())

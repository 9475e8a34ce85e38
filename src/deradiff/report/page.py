"""The report: one html file that contains plotly, the figures and small pictures, and opens offline."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deradiff.analysis import messages
from deradiff.analysis.commands import settling_commands
from deradiff.analysis.recommend import Recommendation
from deradiff.errors import ResultsError
from deradiff.report.data import as_script, explorer_data, strip_contents
from deradiff.report.figures import axis_range
from deradiff.report.markdown import write_markdown
from deradiff.report.plots import Plots, make_plots, sampled_images
from deradiff.report.static_figures import write_figures
from deradiff.report.template import render
from deradiff.report.thumbnails import make_strips
from deradiff.report.votes import vote_section
from deradiff.results import Results, as_results
from deradiff.writing import write_whole


class Run(Protocol):
    """The part of a `deradiff.Run` that a report needs."""

    folder: Path

    def results(self) -> Results:
        """The table of results."""
        ...


def write_report(
    source: Results | Run | Mapping[str, Results],
    answer: Recommendation | Mapping[str, Recommendation],
    path: str | Path | None = None,
    *,
    figures: bool = False,
    markdown: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write one self-contained html page about a run: the recommended lam, the curves, the images.

    Args:
        source: a run, or a table of results; the page shows gaps as gaps. Of several, such as one a guidance, a mapping
            of names to tables, which are tabs.
        answer: the result of `deradiff.recommend`; of several tables a mapping with the same names.
        path: the html file to write; missing folders are created. By default ``report.html`` in the run's folder.
        figures: also write every plot as PNG and SVG, and grids of images, into the folder ``figures`` beside the page.
        markdown: also write a summary beside the page, ``.md`` instead of ``.html``, which shows these figures if they
            are written too.
        progress: called with the number of images that were added to the page.

    Returns:
        The path of the page.

    Raises:
        ResultsError: an image can't be read, the page can't be written, a table is given without a path, an argument
            has another type, or figures can't be drawn.
    """
    tables, answers = _named(source, answer)
    path = _path(source, path)
    strips = make_strips(list(tables.values()), progress=progress)
    plots = {name: make_plots(results, answers[name]) for name, results in tables.items()}
    tabs = [_tab(name, results, answers[name], plots[name]) for name, results in tables.items()]
    data = [
        explorer_data(name, {"": results}, [each], shown_lams(results, answers[name]), path.parent, answers[name])
        for (name, results), each in zip(tables.items(), strips, strict=True)
    ]
    page = render(
        "page.html",
        {
            "tabs": tabs,
            "messages": messages,
            "data": as_script(data),
            "strips": as_script([strip_contents([each]) for each in strips]),
        },
    )
    write_whole(path, page, ResultsError)
    drawn = write_figures(tables, answers, plots, path.parent / "figures") if figures else {}
    if markdown:
        write_markdown(tables, answers, path.with_suffix(".md"), drawn)
    return path


def _named(source: Any, answer: Any) -> tuple[dict[str, Results], dict[str, Recommendation]]:
    """Tables and answers by the names of their tabs."""
    tables = dict(source) if isinstance(source, Mapping) else {"": as_results(source)}
    answers = dict(answer) if isinstance(answer, Mapping) else {"": answer}
    if not tables or tables.keys() != answers.keys():
        raise ResultsError(f"expected one answer for each table ({', '.join(tables)}), got {', '.join(answers)}")
    for each in answers.values():
        if not isinstance(each, Recommendation):
            raise ResultsError(f"answer: expected what deradiff.recommend returns, got {type(each).__name__}")
    return {name: as_results(table) for name, table in tables.items()}, answers


def _path(source: Any, path: str | Path | None) -> Path:
    if path is not None:
        return Path(path)
    if isinstance(source, Results | Mapping):
        raise ResultsError("a table of results has no folder; give the path of the page")
    return source.folder / "report.html"


def _tab(name: str, results: Results, answer: Recommendation, plots: Plots) -> dict[str, Any]:
    """What the template shows of one table."""
    reweighted = plots.reweighted
    return {
        "name": name,
        "results": results,
        "answer": answer,
        "alarms": [messages.alarm_sentence(alarm, answer.prompts) for alarm in answer.raised_alarms],
        "facts": facts_of(results),
        "shown": shown_lams(results, answer),
        "plots": plots,
        "verdicts": _verdicts(answer) if answer.constraints else [],
        "from_lams": ", ".join(f"{lam:g}" for lam in reweighted.sampled) if reweighted else "",
        "votes": vote_section(results, answer.votes),
        "particles": list(_particles(results)),
        "commands": list(settling_commands(answer, results.folder)) if results.folder else [],
    }


def _verdicts(answer: Recommendation) -> list[tuple[float, float, str, str]]:
    """For each lam where its part of the axis begins and how long it is, in % of it, its verdict and the reason."""
    low, high = axis_range(answer.lams)
    edges = [low, *((a + b) / 2 for a, b in zip(answer.lams, answer.lams[1:], strict=False)), high]
    return [
        (
            100 * (edges[index] - low) / (high - low),
            100 * (edges[index + 1] - edges[index]) / (high - low),
            answer.verdicts[index] if lam else "reference",
            f"lam {lam:g}: {messages.verdict_reason(answer, index) or answer.verdicts[index]}",
        )
        for index, lam in enumerate(answer.lams)
    ]


def facts_of(results: Results) -> dict[str, str]:
    """How many images a table has, the anchor's beta, and what a reader needs to repeat the run."""
    sampled = sampled_images(results)
    prompts, seeds, lams = (int(sampled.any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1)))
    counts = ((prompts, "prompt"), (seeds, "seed"), (lams, "lam"))
    product = " × ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts)
    count, whole = int(sampled.sum()), prompts * seeds * lams
    images = f"{count:,} ({product})" if count == whole else f"{count:,} of the {whole:,} of {product}"
    if results.missing:
        images += f"; {results.missing:,} requested images are missing"
    beta = "unknown" if results.anchor_beta is None else f"{results.anchor_beta:g}"
    return {"Images": images, "Anchor's beta": beta, **results.details}


def shown_lams(results: Results, answer: Recommendation) -> list[int]:
    """Indices of the sampled lams and the recommended one."""
    sampled = np.flatnonzero(sampled_images(results).any(axis=(0, 1))).tolist()
    return sorted({*sampled, answer.index})


def _particles(results: Results) -> Iterator[tuple[float, float, float]]:
    """Each lam with particles, with means of the effective sample size and of the number of ancestors."""
    if {"ess", "ancestors"} <= set(results.paths):
        for index, lam in enumerate(results.lams):
            ess, ancestors = (results.paths[name][:, :, index] for name in ("ess", "ancestors"))
            if np.isfinite(ess).any():
                yield lam, float(np.nanmean(ess)), float(np.nanmean(ancestors))

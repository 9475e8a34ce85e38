"""The report as Markdown, for papers: the answer, its table, and the figures that were written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deradiff.analysis import messages
from deradiff.analysis.recommend import Recommendation
from deradiff.errors import ResultsError, printable
from deradiff.results import Results
from deradiff.writing import write_whole


def write_markdown(
    tables: Mapping[str, Results],
    answers: Mapping[str, Recommendation],
    path: Path,
    figures: Mapping[str, Sequence[tuple[str, Path]]],
) -> None:
    """Write a summary of one or more tables.

    Args:
        tables: by the names of the page's tabs.
        answers: likewise.
        path: the file.
        figures: likewise, title and PNG file of each figure that was written.

    Raises:
        ResultsError: it can't be written.
    """
    parts = ["# Report"]
    for name, answer in answers.items():
        parts += _section(name, tables[name], answer)
        parts += [
            f"![{_text(title)}]({file.relative_to(path.parent).as_posix()})" for title, file in figures.get(name, ())
        ]
    write_whole(path, ("\n\n".join(parts) + "\n").encode(), ResultsError)


def _section(name: str, results: Results, answer: Recommendation) -> list[str]:
    settle = messages.to_settle(answer)
    alarms = [messages.alarm_sentence(alarm, answer.prompts) for alarm in answer.raised_alarms]
    silent = messages.no_alarm_message(answer)
    sentences = [
        *messages.reasons(answer),
        f"At other risks: {messages.by_risk(answer)}",
        *([f"To settle it: {settle}"] if settle else []),
        *(f"Hacking alarm: {text}" for text in [*alarms, *([silent] if silent else [])]),
    ]
    return [
        f"## Recommended {_text(messages.headline(answer, name or None))}",
        " ".join(map(_text, sentences)),
        _table(answer),
        "\n".join(f"- {_text(warning)}" for warning in messages.warnings(answer)),
        "\n".join(f"- {_text(key)}: {_text(value)}" for key, value in results.details.items()),
    ]


def _table(answer: Recommendation) -> str:
    """The rewards of the question along lam: change to lam = 0 with 95% limits, and the verdict."""
    names = list(answer.curves)
    rows = [["lam", "beta", *names, "guards"]]
    for index, lam in enumerate(answer.lams):
        beta = answer.betas[index]
        changes = ["{} ({} to {})".format(*answer.curves[name].change[index].figures) if lam else "0" for name in names]
        verdict = answer.verdicts[index] if answer.constraints and lam else ""
        rows.append([f"{lam:g}", "" if beta is None else f"{beta:.3g}", *changes, verdict])
    head, *body = [f"| {' | '.join(map(_text, row))} |" for row in rows]
    return "\n".join([head, f"|{'---:|' * (2 + len(names))}---|", *body])


def _text(text: str) -> str:
    """Text of users without the marks that Markdown and HTML read."""
    shown = printable(text).replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\`*_[]|#":
        shown = shown.replace(mark, f"\\{mark}")
    return shown

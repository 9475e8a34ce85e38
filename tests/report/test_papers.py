"""What is written for papers: Markdown that shows names as they are, and figures as files."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from synthetic_sweep import LAMS

from deradiff.analysis import messages
from deradiff.analysis.recommend import Recommendation, recommend
from deradiff.errors import ResultsError
from deradiff.report import static_figures, write_report
from deradiff.results import Results


def test_markdown_has_the_answer_and_a_row_a_lam(results: Results, answer: Recommendation, tmp_path: Path) -> None:
    write_report(results, answer, tmp_path / "report.html", markdown=True)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"## Recommended {messages.headline(answer)}" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| lam", *(f"| {lam:g}" for lam in LAMS)]
    mean, low, high = answer.curves["warmth"].change[4].figures
    assert f"{mean} ({low} to {high})" in rows[5]


def test_names_in_markdown_are_only_text(results: Results, tmp_path: Path) -> None:
    name = "a|b <img src=x> [link](http://x) `code`"
    table = dataclasses.replace(results, scores={name: results.scores["warmth"]})
    write_report(table, recommend(table, name), tmp_path / "report.html", markdown=True)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<img" not in text
    assert r"a\|b &lt;img src=x> \[link\]" in text


def blank_files(figures: list[Any], files: list[Path], scale: list[int], **size: int) -> None:
    for _, file, _ in zip(figures, files, scale, strict=True):
        file.write_bytes(b"drawn")


def test_figures_are_drawn_as_files_and_named_in_markdown(
    results: Results, answer: Recommendation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the drawing itself left to kaleido."""
    monkeypatch.setattr(static_figures, "find_spec", lambda name: object())
    monkeypatch.setattr(static_figures.plotly.io, "write_images", blank_files)
    write_report(results, answer, tmp_path / "report.html", figures=True, markdown=True)
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert "01-mean-warmth-against-lam.png" in files
    assert len(files) == 2 * (2 * len(results.scores) + 1) + 1
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(f"figures/{name}" in text for name in files if name.endswith(".png"))
    with Image.open(tmp_path / "figures" / "images.png") as grid:
        assert grid.width > 160 * len(LAMS)


def test_the_grid_of_images_begins_with_the_reference(results: Results, answer: Recommendation, tmp_path: Path) -> None:
    lams = [lam - 1.5 for lam in LAMS]  # 0 stands in the middle
    table = dataclasses.replace(results, lams=lams)
    path = static_figures._write_grid(table, answer, tmp_path / "images.png")
    corner = 0, 2 * static_figures._LABEL
    with Image.open(path) as grid, Image.open(results.image(0, 0, lams.index(0))) as image:
        tile = grid.crop((*corner, corner[0] + image.width, corner[1] + image.height))
        assert tile.tobytes() == image.convert("RGB").tobytes()


def test_without_what_draws_figures_the_error_says_what_to_install(
    results: Results, answer: Recommendation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_browser(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("no Chrome")

    monkeypatch.setattr(static_figures, "find_spec", lambda name: None)
    with pytest.raises(ResultsError, match=r"pip install 'deradiff\[figures\]'"):
        write_report(results, answer, tmp_path / "report.html", figures=True)
    monkeypatch.setattr(static_figures, "find_spec", lambda name: object())
    monkeypatch.setattr(static_figures.plotly.io, "write_images", no_browser)
    with pytest.raises(ResultsError, match=r"no Chrome\); install Chromium"):
        write_report(results, answer, tmp_path / "report.html", figures=True)


@pytest.mark.browser
def test_kaleido_draws(results: Results, answer: Recommendation, tmp_path: Path) -> None:
    write_report(results, answer, tmp_path / "report.html", figures=True)
    with Image.open(tmp_path / "figures" / "01-mean-warmth-against-lam.png") as image:
        assert image.size == (1280, 840)
    assert "<svg" in (tmp_path / "figures" / "01-mean-warmth-against-lam.svg").read_text(encoding="utf-8")

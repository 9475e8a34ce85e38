"""Every plot as PNG and SVG, by kaleido and an installed Chromium, and a labelled grid of images as PNG."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import plotly.graph_objects as go
import plotly.io
from PIL import Image, ImageDraw, ImageFont

from deradiff.analysis.recommend import Recommendation
from deradiff.errors import ResultsError, printable
from deradiff.reading import decode_image, read_whole
from deradiff.report.plots import Plot, Plots
from deradiff.results import Results
from deradiff.writing import encode_png, write_whole

_WIDTH, _HEIGHT = 640, 420  # px of an SVG
_SCALES = {"svg": 1, "png": 2}  # px for each of an SVG's
_TILE, _LABEL, _PROMPTS = 160, 24, 8  # px, px, and how many prompts a grid shows


def write_figures(
    tables: Mapping[str, Results], answers: Mapping[str, Recommendation], plots: Mapping[str, Plots], folder: Path
) -> dict[str, list[tuple[str, Path]]]:
    """Write all figures of one or more tables.

    Args:
        tables: by the names of the page's tabs.
        answers: likewise.
        plots: likewise.
        folder: to write into; with several tables each has a folder in it.

    Returns:
        By name, the title and the PNG file of each figure.

    Raises:
        ResultsError: kaleido or Chromium isn't installed, an image can't be read, or a file can't be written.
    """
    if find_spec("kaleido") is None:
        raise ResultsError("figures need kaleido and Chromium or Chrome; install them: pip install 'deradiff[figures]'")
    written = dict[str, list[tuple[str, Path]]]()
    for number, (name, results) in enumerate(tables.items()):
        subfolder = folder / f"{number + 1}" if len(tables) > 1 else folder
        written[name] = _write_plots(plots[name].all, subfolder)
        if (results.images != "").any():
            title = "Images by prompt and lam"
            written[name].append((title, _write_grid(results, answers[name], subfolder / "images.png")))
    return written


def _write_plots(plots: list[Plot], folder: Path) -> list[tuple[str, Path]]:
    names = [f"{number + 1:02}-{plot.slug}" for number, plot in enumerate(plots)]
    with TemporaryDirectory() as drawn:
        files = [Path(drawn) / f"{name}.{kind}" for name in names for kind in _SCALES]
        _draw([plot.figure for plot in plots for _ in _SCALES], files)
        for file in files:
            write_whole(folder / file.name, file.read_bytes(), ResultsError)
    return [(plot.title, folder / f"{name}.png") for plot, name in zip(plots, names, strict=True)]


def _draw(figures: list[go.Figure], files: list[Path]) -> None:
    """Draw plots on white, by one browser for all."""
    white = {"paper_bgcolor": "white", "plot_bgcolor": "white", "font_color": "#222"}
    try:
        plotly.io.write_images(
            [go.Figure(figure).update_layout(white) for figure in figures],
            list[str | Path](files),
            scale=[_SCALES[file.suffix[1:]] for file in files],
            width=_WIDTH,
            height=_HEIGHT,
        )
    except (RuntimeError, ValueError, OSError) as error:  # of kaleido: no browser, or one that doesn't start
        raise ResultsError(
            f"figures can't be drawn ({type(error).__name__}: {error}); install Chromium or Chrome, or name it in the "
            "environment variable BROWSER_PATH"
        ) from error


def _write_grid(results: Results, answer: Recommendation, path: Path) -> Path:
    """The images of the first prompts at the first seed, lam = 0 first, with labelled axes."""
    prompts = [index for index in range(len(results.prompts)) if (results.images[index, 0] != "").any()][:_PROMPTS]
    lams = [index for index in range(len(results.lams)) if (results.images[:, 0, index] != "").any()]
    lams.sort(key=lambda index: (results.lams[index] != 0, results.lams[index]))
    row = _TILE + 2 * _LABEL
    sheet = Image.new("RGB", (len(lams) * (_TILE + 4), _LABEL + max(1, len(prompts)) * row), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, lam in enumerate(lams):
        mark = " recommended" if lam == answer.index else ""
        draw.text((column * (_TILE + 4) + 2, 3), f"lam {results.lams[lam]:g}{mark}", fill="black", font=font)
    for line, prompt in enumerate(prompts):
        top = _LABEL + line * row
        draw.text((2, top + 3), printable(results.prompts[prompt])[:150], fill="black", font=font)
        for column, lam in enumerate(lams):
            if results.images[prompt, 0, lam]:
                file = results.image(prompt, 0, lam)
                content = read_whole(file, "the image", ResultsError, inside=results.folder)
                image = decode_image(content, f"the image {file}", ResultsError).convert("RGB")
                image.thumbnail((_TILE, _TILE))
                sheet.paste(image, (column * (_TILE + 4), top + _LABEL))
    write_whole(path, encode_png(sheet), ResultsError)
    return path

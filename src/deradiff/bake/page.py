"""The page of a bake: pairs of images, realigned and baked, and what the bake loses."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deradiff.bake.quality import BakeQuality
from deradiff.errors import BakeError
from deradiff.report import template
from deradiff.report.thumbnails import data_uri
from deradiff.writing import write_whole

_LARGEST = 320  # px
_TEMPLATES = [Path(__file__).parent, Path(template.__file__).parent]  # for the report's css


def write_page(quality: BakeQuality, facts: Mapping[str, str], path: Path) -> Path:
    """Write one self-contained html page; returns its path.

    Args:
        quality: of the bake.
        facts: what was baked and how, name -> value.
        path: the file; missing folders are created.

    Raises:
        BakeError: it can't be written.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    order = quality.errors.argsort(descending=True).tolist()
    sides = (quality.realigned, quality.baked)
    pairs = [
        (quality.prompts[i], float(quality.errors[i]), *(data_uri(images[i], _LARGEST) for images in sides))
        for i in order
    ]
    page = environment.get_template("bake.html").render(quality=quality, facts=facts, pairs=pairs)
    write_whole(path, page.encode(), BakeError)
    return path

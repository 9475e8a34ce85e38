"""The page of a bake: pairs of images, realigned and baked, and what the bake loses."""

from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from deradiff.bake.quality import BakeQuality
from deradiff.errors import BakeError
from deradiff.report import page as report
from deradiff.writing import write_whole

_LARGEST = 320  # px
_TEMPLATES = [Path(__file__).parent, Path(report.__file__).parent]  # for the report's css


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
    pairs = [
        (quality.prompts[i], float(quality.errors[i]), _data_uri(quality.realigned[i]), _data_uri(quality.baked[i]))
        for i in order
    ]
    page = environment.get_template("bake.html").render(quality=quality, facts=facts, pairs=pairs)
    write_whole(path, page.encode(), BakeError)
    return path


def _data_uri(image: Image.Image) -> str:
    pixels = image.convert("RGB")
    small = max(pixels.size) <= report.SMALL
    pixels.thumbnail((_LARGEST, _LARGEST))
    content = BytesIO()
    pixels.save(content, "WEBP", lossless=small, quality=85)
    return f"data:image/webp;base64,{b64encode(content.getvalue()).decode()}"

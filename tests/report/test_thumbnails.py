"""Strips hold every image once, exactly where it is small, and as much as fits."""

import dataclasses
import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_sweep import LAMS, PROMPTS, SEEDS, draw, synthetic

from deradiff.report import cache, thumbnails
from deradiff.report.thumbnails import Strips, make_strips
from deradiff.results import Results


def test_small_images_are_embedded_exactly(results: Results) -> None:
    (strips,) = make_strips([results])
    assert strips.is_crisp
    for prompt, seed, lam in [(0, 0, 0), (2, 3, 5), (7, 1, 8)]:
        with Image.open(BytesIO(b64decode(strips.content[prompt, seed]))) as strip:
            left = 64 * strips.tiles[prompt, seed, lam]
            pixels = np.asarray(strip.convert("RGB").crop((left, 0, left + 64, 64)))
        with Image.open(results.image(prompt, seed, lam)) as image:
            np.testing.assert_array_equal(pixels, np.asarray(image))


def test_large_images_are_reduced_to_what_fits(tmp_path: Path) -> None:
    results = synthetic(tmp_path, size=512, prompts=PROMPTS[:3], seeds=SEEDS[:1])
    (strips,) = make_strips([results])
    assert strips.size == (320, 320)
    whole = sum(map(len, strips.content.flat))
    (smaller,) = make_strips([results], budget=whole // 3)
    assert smaller.size[0] < 320
    assert sum(map(len, smaller.content.flat)) <= whole // 3
    (first,) = make_strips([results], budget=1)  # one prompt is always there
    assert first.n_embedded == 1


def test_the_distance_is_to_the_reference_wherever_it_stands(results: Results, tmp_path: Path) -> None:
    table = results.on_axes(results.prompts[:1], results.seeds[:1], results.lams)
    lams = [lam - 1.5 for lam in LAMS]  # 0 stands in the middle
    shifted = Results(prompts=table.prompts, seeds=table.seeds, lams=lams, scores={}, images=table.images)
    distance = make_strips([shifted])[0].distance[0, 0]
    assert distance[lams.index(0)] == 0
    assert (np.delete(distance, lams.index(0)) > 0).all()


def strips_with(results: Results, image: Image.Image, file: Path) -> Strips:
    """Of the first prompt and seed, with another image as the fourth."""
    table = results.on_axes(results.prompts[:1], results.seeds[:1], results.lams)
    images = table.images.copy()
    image.save(file)
    images[0, 0, 3] = file
    return make_strips([dataclasses.replace(table, images=images)])[0]


def test_black_images_are_noticed(results: Results, tmp_path: Path) -> None:
    strips = strips_with(results, Image.new("RGB", (64, 64)), tmp_path / "black.png")
    assert np.flatnonzero(strips.is_black).tolist() == [3]


def test_an_image_of_another_shape_stands_in_the_middle_of_its_tile(results: Results, tmp_path: Path) -> None:
    strips = strips_with(results, Image.new("RGB", (32, 64), "red"), tmp_path / "narrow.png")
    with Image.open(BytesIO(b64decode(strips.content[0, 0]))) as strip:
        tile = np.asarray(strip.convert("RGB"))[:, 3 * 64 : 4 * 64]
    assert (tile[:, 16:48] == (255, 0, 0)).all()
    assert (tile[:, [0, 15, 48, 63]] == 128).all()


@pytest.fixture
def run(tmp_path: Path) -> Results:
    """A table that lies in a run's folder, which keeps what was made of it."""
    table = synthetic(tmp_path, size=160, prompts=PROMPTS[:2], seeds=SEEDS[:1])
    return dataclasses.replace(table, folder=tmp_path)


def same(one: Strips, other: Strips) -> bool:
    names = [field.name for field in dataclasses.fields(Strips)]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def pad(file: Path) -> None:
    """Fill a file up, so that its image can change and its size doesn't."""
    file.write_bytes(file.read_bytes().ljust(5000, b"\0"))
    assert file.stat().st_size == 5000


def test_a_page_that_is_written_again_decodes_no_image(run: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run.image(1, 0, 3)
    pad(file)
    (elsewhere,) = make_strips([dataclasses.replace(run, folder=None)])
    (first,) = make_strips([run])
    with monkeypatch.context() as patched:
        patched.delattr(thumbnails, "decode_image")
        (again,) = make_strips([run])
    assert same(first, elsewhere)
    assert same(first, again)
    assert not same(first, make_strips([run], budget=1)[0])  # another budget, other strips
    draw(file, 5, 5, 5, size=160)
    pad(file)
    (changed,) = make_strips([run])
    assert (changed.content == first.content).tolist() == [[True], [False]]


def test_what_is_kept_of_strips_is_only_believed_where_it_fits(run: Results) -> None:
    (first,) = make_strips([run])
    file = run.image(0, 0, 0).parent / cache.NAME
    kept = json.loads(file.read_bytes())
    damaged = [{"content": '"><script>', "distance": [0.0], "is_black": [False]}, {"size": [0, 0]}, None, "x"]
    for content in ("{", "[]", *(json.dumps(dict.fromkeys(kept, entry)) for entry in damaged)):
        file.write_text(content)
        assert same(first, make_strips([run])[0])
    assert json.loads(file.read_bytes()) == kept
    file.unlink()
    file.mkdir()  # can't be written
    assert same(first, make_strips([run])[0])

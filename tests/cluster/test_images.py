"""How images get from workers into the run folder: every route, and what goes wrong on it."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.runs.small_runs import AXES

from deradiff.cluster import images
from deradiff.cluster.images import Landing, Routes, StorageUnavailableError, landing
from deradiff.cluster.pool import LostResultError
from deradiff.runs.cells import Request
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo
from deradiff.runs.store import Store

CONTENTS = [b"one", b"two", b"three"]


@pytest.fixture
def land(tmp_path: Path) -> Iterator[Landing]:
    store = Store.at(tmp_path / "run", Recipe(model="m", anchor="a"))
    with store.writing() as writer, landing(store, writer, f"file://{tmp_path}/storage") as land:
        yield land


@pytest.fixture
def record(land: Landing) -> CellsRecord:
    cells = list(Request(**{**AXES, "seeds": [0, 1]}).cells())[:3]
    hashes = [sha256(content).hexdigest() for content in CONTENTS]
    info = SamplingInfo(nfe=1, nfe_published=1)
    return CellsRecord.of(cells, [land.store.keys(cell) for cell in cells], hashes, {}, info)


def routes(land: Landing, route: str) -> Routes:
    """As a worker sees them that must take this route."""
    if route == "folder":
        return land.routes
    away = replace(land.routes, parts="/nowhere")
    return away if route == "storage" else replace(away, storage=None)


def files(land: Landing) -> list[bytes]:
    return sorted(path.read_bytes() for path in land.store.folder.rglob("images/*/*.png"))


def left_over(land: Landing, tmp_path: Path) -> list[Path]:
    return [path for path in [*land.writer.parts.iterdir(), *tmp_path.glob("storage/*/*")] if path.suffix == ".png"]


@pytest.mark.parametrize("route", ["folder", "storage", "inline"])
def test_images_that_count_are_in_the_run_folder_and_nothing_is_left_on_the_way(
    land: Landing, record: CellsRecord, tmp_path: Path, route: str
) -> None:
    parcel = routes(land, route).send(record, CONTENTS)
    assert parcel.route == route
    assert files(land) == []
    taken = land.take(parcel, [0, 2])
    assert taken is not None
    assert taken.keys == (record.keys[0], record.keys[2])
    assert files(land) == [b"one", b"three"]
    assert land.take(routes(land, route).send(record, [b"x", b"y", b"z"]), []) is None  # too late: another was first
    assert files(land) == [b"one", b"three"]
    assert left_over(land, tmp_path) == []


@pytest.mark.parametrize("route", ["folder", "storage"])
def test_an_image_that_is_gone_is_lost(land: Landing, record: CellsRecord, tmp_path: Path, route: str) -> None:
    parcel = routes(land, route).send(record, CONTENTS)
    for path in left_over(land, tmp_path):
        path.unlink()
    with pytest.raises(LostResultError):
        land.take(parcel, [0, 1, 2])


def test_an_image_that_is_damaged_on_the_way_is_lost(land: Landing, record: CellsRecord) -> None:
    parcel = replace(routes(land, "inline").send(record, CONTENTS), contents=(b"one", b"", b"three"))
    with pytest.raises(LostResultError, match="damaged"):
        land.take(parcel, [0, 1, 2])


def test_a_storage_that_refuses_for_a_while_is_waited_for(
    land: Landing, record: CellsRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstacle = tmp_path / "storage"
    obstacle.write_text("a file where the folder should be")
    pauses = list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            obstacle.unlink()

    monkeypatch.setattr(images.time, "sleep", sleep)
    land.take(routes(land, "storage").send(record, CONTENTS), [0, 1, 2])
    assert len(files(land)) == len(pauses) == 3


def test_a_storage_that_stays_away_is_said(
    land: Landing, record: CellsRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "storage").write_text("a file where the folder should be")
    monkeypatch.setattr(images.time, "sleep", lambda seconds: None)
    with pytest.raises(StorageUnavailableError):
        routes(land, "storage").send(record, CONTENTS)

"""Symbolic links in a run folder: nothing is read or written through one that leads out of it."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from tests.runs.painted import JOURNAL, REQUESTS, SCORES, cells_of, paint, painted
from tests.runs.small_runs import REWARD, assert_same, contents

from deradiff.analysis.recommend import recommend
from deradiff.errors import DeradiffError, RunFolderError
from deradiff.report import write_report
from deradiff.runs.cells import Request
from deradiff.runs.legacy import open_run_folder
from deradiff.runs.merge import merge
from deradiff.runs.provenance import note_provenance
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.runs.scoring import score
from deradiff.runs.store import Store
from deradiff.search.state import SearchState, read_state, write_state

LINKED = ["run.json", JOURNAL, "cells-1-of-2.jsonl", SCORES, REQUESTS, "environment.json", "images", "images/{}"]


def everything(store: Store) -> None:
    """All that a run reads and writes."""
    folder = store.folder
    Run(folder)
    load_results(Store.open(folder))
    asked = Request(prompts=["more"], seeds=[0], lams=[0])
    with store.writing() as writer:
        note_provenance(writer, {"python": "other"})
    paint(store, asked.cells())
    store.add_request(asked)
    score(store, REWARD)


@pytest.mark.parametrize("name", LINKED)
def test_nothing_is_followed_out_of_the_folder(tmp_path: Path, store: Store, name: str) -> None:
    with store.writing() as writer:
        note_provenance(writer, {"python": "3"})
    if name == "cells-1-of-2.jsonl":
        (store.folder / JOURNAL).rename(store.folder / name)
    path = store.folder / name.format(min((store.folder / "images").iterdir()).name)
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    before = contents(outside) if outside.is_dir() else outside.read_bytes()
    with pytest.raises(RunFolderError, match="is a link out of"):
        everything(store)
    assert (contents(outside) if outside.is_dir() else outside.read_bytes()) == before


def test_no_file_of_a_run_folder_is_followed_out_of_it(tmp_path: Path) -> None:
    """Whatever a run, a search, a report or version 0.1 left there: led elsewhere it is refused by name, and spared."""
    store = painted(tmp_path / "small", prompts=["one", "two"], seeds=[0], lams=[0, 1])
    write_everything(store)
    names = [path.relative_to(store.folder) for path in store.folder.rglob("*") if path.name != "CITATION.bib"]
    images = [name for name in names if name.parts[0] == "images"]
    names = [*({*names} - {*images}), Path("images"), *sorted(images)[1:3]]  # a folder of images, and an image
    names += map(Path, (".cells.parts", ".rewards.parts", "plan.json"))
    for number, name in enumerate(sorted(set(names))):
        folder = tmp_path / f"copy{number}"
        shutil.copytree(store.folder, folder)
        outside = tmp_path / f"outside{number}"
        if (folder / name).exists():
            (folder / name).rename(outside)
        else:
            outside.mkdir() if name.suffix == ".parts" else outside.write_bytes(b"{}")
        (folder / name).symlink_to(outside)
        if name.name == "plan.json":
            (folder / "run.json").unlink()
        before = contents(outside) if outside.is_dir() else outside.read_bytes()
        with pytest.raises(DeradiffError, match=rf"{name.name}\S* is a link") as error:
            write_everything(Store.open(folder) if name.name != "plan.json" else open_run_folder(folder))
        assert str(folder / name).split("/images/")[0] in str(error.value)
        assert (contents(outside) if outside.is_dir() else outside.read_bytes()) == before
        shutil.rmtree(folder)


def write_everything(store: Store) -> None:
    """All that writes into a run folder, once more."""
    everything(store)
    read_state(store.folder)
    write_state(store.folder, SearchState(max_lam=1, prompts=("one",), seeds=(0,)))
    with store.writing((0, 2)):
        pass
    merge([store.folder], store.folder.parent / "merged")
    shutil.rmtree(store.folder.parent / "merged")
    write_report(load_results(store), recommend(load_results(store), REWARD), store.folder / "report.html")


@pytest.mark.parametrize("torn", [b"", b'{"torn'])
def test_a_request_is_not_noted_outside(tmp_path: Path, store: Store, torn: bytes) -> None:
    outside = tmp_path / "outside"
    (store.folder / REQUESTS).unlink()
    (store.folder / REQUESTS).symlink_to(outside)
    if torn:
        outside.write_bytes(torn)
    with pytest.raises(RunFolderError, match="is a link out of"):
        store.add_request(Request(prompts=["more"], seeds=[0], lams=[0]))
    assert (outside.read_bytes() if outside.exists() else b"") == torn


def test_no_image_is_read_from_outside(tmp_path: Path, store: Store) -> None:
    image = min(store.folder.rglob("*.png"))
    image.rename(tmp_path / "outside.png")
    image.symlink_to(tmp_path / "outside.png")
    with pytest.raises(RunFolderError, match="is a link out of"):
        load_results(store)


@pytest.mark.parametrize("name", [".cells.parts", ".rewards.parts"])
def test_nothing_is_written_by_way_of_parts_that_lead_outside(tmp_path: Path, store: Store, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (store.folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(RunFolderError, match="is a link out of"):
        everything(store)
    assert (store.folder / name).is_symlink()
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["run.json", "{}.png"])
def test_a_part_that_is_a_link_is_not_written_through(tmp_path: Path, store: Store, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (cell,) = Request(prompts=["more"], seeds=[0], lams=[0]).cells()
    parts = store.folder / ".cells.parts"
    parts.mkdir()
    (parts / name.format(store.keys(cell))).symlink_to(outside)
    other = Store(store.folder, store.recipe.model_copy(update={"anchor_beta": 1.0}))  # writes run.json anew
    with suppress(RunFolderError):
        paint(other, [cell])
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("name", [".lock", ".cells.lock", ".rewards.lock"])
def test_a_lock_that_is_a_link_spares_what_it_leads_to(tmp_path: Path, store: Store, name: str) -> None:
    (tmp_path / "outside").write_text("mine")
    (store.folder / name).unlink(missing_ok=True)
    (store.folder / name).symlink_to(tmp_path / "outside")
    with suppress(RunFolderError):
        everything(store)
    assert (tmp_path / "outside").read_text() == "mine"


def test_no_folder_is_made_outside(tmp_path: Path, store: Store) -> None:
    (tmp_path / "outside").mkdir()
    shutil.rmtree(store.folder / "images")
    (store.folder / "images").symlink_to(tmp_path / "outside")
    with pytest.raises(RunFolderError, match="is a link out of"):
        paint(store, cells_of(store))
    assert list((tmp_path / "outside").iterdir()) == []


def test_links_within_the_folder_and_to_it_are_followed(tmp_path: Path, store: Store) -> None:
    before = load_results(store)
    (store.folder / "images").rename(store.folder / "pictures")
    (store.folder / "images").symlink_to("pictures")
    (tmp_path / "link").symlink_to(store.folder)
    assert_same(load_results(Store.open(tmp_path / "link")), before)

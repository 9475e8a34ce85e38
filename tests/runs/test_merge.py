"""Runs put together: the union, once; what contradicts is told and not mixed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runs.painted import cells_of, content, paint, painted, pixels
from tests.runs.small_runs import REWARD, assert_same, contents, finished, images, quiet, recipe_of

from deradiff.errors import RunFolderError
from deradiff.runs.cells import Cell, Request
from deradiff.runs.merge import merge
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.runs.scoring import score
from deradiff.runs.store import Store


def parts(root: Path, **changes: Any) -> list[Path]:
    """Two scored runs that share a prompt."""
    found = []
    for number, prompts in enumerate((["one", "two"], ["two", "three"])):
        store = painted(root / f"part{number}", prompts=prompts, **changes)
        for name in (REWARD, "diversity"):
            score(store, name)
        found.append(store.folder)
    return found


def whole(root: Path) -> Store:
    store = painted(root / "whole")
    for name in (REWARD, "diversity"):
        score(store, name)
    return store


def test_a_merged_run_is_the_union_with_its_scores_and_the_parts_stay(tmp_path: Path) -> None:
    folders = parts(tmp_path)
    before = [contents(folder) for folder in folders]
    merged = merge(folders, tmp_path / "all")
    assert (merged.images, merged.contradictions) == (36, ())
    assert [contents(folder) for folder in folders] == before
    assert images(tmp_path / "all") == images(whole(tmp_path).folder)
    assert_same(load_results(Store.open(tmp_path / "all")), load_results(Store.open(tmp_path / "whole")))
    assert Store.open(tmp_path / "all").requests() == [
        request for folder in folders for request in Store.open(folder).requests()
    ]


def test_merging_twice_is_merging_once_in_any_order(tmp_path: Path) -> None:
    folders = parts(tmp_path)
    merge(folders, tmp_path / "all")
    before = contents(tmp_path / "all")
    for again in (folders, folders[::-1], [folders[0], folders[0], tmp_path / "all"]):
        assert merge(again, tmp_path / "all").images == 0
        assert contents(tmp_path / "all") == before
    merge(folders[::-1], tmp_path / "turned")
    one, other = (load_results(Store.open(tmp_path / name)) for name in ("all", "turned"))
    assert_same(one, other)


def test_a_run_takes_what_it_lacks_from_another(tmp_path: Path) -> None:
    one, other = parts(tmp_path)
    assert merge([one, other], one).images == 12
    assert_same(load_results(Store.open(one)), load_results(whole(tmp_path)))
    assert len(images(other)) == 24


def test_groups_that_were_split_are_scored_anew(tmp_path: Path) -> None:
    """Each part had two seeds of a prompt, so that no part's diversity is that of the four."""
    for number, seeds in enumerate(([0, 1], [2, 3])):
        store = painted(tmp_path / f"part{number}", seeds=seeds)
        for name in (REWARD, "diversity"):
            score(store, name)
    merge([tmp_path / "part0", tmp_path / "part1"], tmp_path / "all")
    merged = Store.open(tmp_path / "all")
    results = load_results(merged)
    assert (list(results.scores), results.unscored) == ([REWARD], {"diversity": 36})
    score(merged, "diversity")
    assert_same(load_results(merged), load_results(whole(tmp_path)))


def test_runs_that_contradict_each_other_are_reported_and_not_mixed(tmp_path: Path) -> None:
    one, other = parts(tmp_path)
    clash = [Cell("two", 1, None, 0.0), Cell("two", 1, None, 1.0)]
    paint(Store.open(other), clash, version=1)
    for name in (REWARD, "diversity"):
        score(Store.open(other), name)
    merged = merge([one, other], tmp_path / "all")
    assert merged.images == 36
    assert len(merged.contradictions) == 2
    for told, lam in zip(sorted(merged.contradictions), ("0", "1"), strict=True):
        assert told == f"'two', seed 1, lam {lam}: another image in {other}"
    store = Store.open(tmp_path / "all")
    for cell in clash:
        assert store.image(cell).read_bytes() == content(store.keys(cell))
    for name in (REWARD, "diversity"):
        score(store, name)
    assert_same(load_results(store), load_results(whole(tmp_path)))
    turned = merge([other, one], tmp_path / "turned")
    assert len(turned.contradictions) == 2
    for cell in clash:
        assert Store.open(tmp_path / "turned").image(cell).read_bytes() == content(store.keys(cell), version=1)


def test_scores_of_an_image_that_was_not_taken_do_not_count(tmp_path: Path) -> None:
    clash = Cell("one", 0, None, 0.0)
    one, other = painted(tmp_path / "one", prompts=["one"]), painted(tmp_path / "other", prompts=["one"])
    paint(other, [clash], version=1)
    score(other, REWARD)
    merge([one.folder, other.folder], tmp_path / "all")
    results = load_results(Store.open(tmp_path / "all"))
    assert results.unscored == {REWARD: 1}
    score(Store.open(tmp_path / "all"), REWARD)
    merged = Store.open(tmp_path / "all")
    np.testing.assert_allclose(load_results(merged).scores[REWARD], pixels(merged).mean((-3, -2, -1)), atol=1e-6)


def test_of_an_image_that_came_out_otherwise_later_the_latest_is_taken(tmp_path: Path) -> None:
    store = painted(tmp_path / "one")
    remade = cells_of(store)[5]
    paint(store, [remade], version=1)
    assert merge([store.folder], tmp_path / "all").contradictions == ()
    assert images(tmp_path / "all") == images(store.folder)
    keys = [key for record in Store.open(tmp_path / "all").records() for key in record.keys]
    assert len(keys) == len(set(keys)) == 36
    assert_same(load_results(Store.open(tmp_path / "all")), load_results(store))


def test_an_image_that_was_deleted_comes_from_where_it_is(tmp_path: Path) -> None:
    one, other = parts(tmp_path)
    expected = images(one) | images(other)
    for folder, cell in ((one, Cell("two", 0, None, 0.0)), (other, Cell("two", 1, None, 0.0))):
        Store.open(folder).image(cell).unlink()
    gone = Cell("one", 0, None, 0.0)
    Store.open(one).image(gone).unlink()
    merged = merge([one, other], tmp_path / "all")
    lost = Store.open(one).image(gone).relative_to(one).as_posix()
    assert images(tmp_path / "all") == {name: own for name, own in expected.items() if name != lost}
    assert merged.images == 35
    results = load_results(Store.open(tmp_path / "all"))
    assert results.unscored == {}
    assert np.isfinite(results.scores[REWARD]).all()  # the lost one's too
    assert results.missing == 0


def test_an_image_that_no_journal_knows_is_not_taken_for_the_one_that_was_journalled(tmp_path: Path) -> None:
    """Left by a process that was killed before it noted it, and sampled by another machine, which rounds otherwise."""
    one, other = parts(tmp_path)
    target = painted(tmp_path / "all", prompts=["four"])
    orphan = Store.open(one).image(Cell("one", 0, None, 0.0)).relative_to(one)
    (target.folder / orphan).parent.mkdir(exist_ok=True)
    (target.folder / orphan).write_bytes(content(orphan.stem, version=1))
    merge([one, other], target.folder)
    assert images(target.folder).items() >= (images(one) | images(other)).items()
    score(target, "saturation")


@pytest.mark.parametrize("harm", [b"", b"nonsense"])
def test_a_damaged_image_is_refused(tmp_path: Path, harm: bytes) -> None:
    one, other = parts(tmp_path)
    broken = Store.open(other).image(Cell("three", 0, None, 0.0))
    broken.write_bytes(harm)
    with pytest.raises(RunFolderError, match=rf"the image {broken} isn't the one that was journalled; delete it"):
        merge([one, other], tmp_path / "all")
    broken.unlink()  # as it says
    merge([one, other], tmp_path / "all")
    assert len(images(tmp_path / "all")) == 35


def test_runs_of_different_recipes_are_refused(tmp_path: Path) -> None:
    one, other = parts(tmp_path)
    third = painted(tmp_path / "third", recipe={"steps": 3}).folder
    for folders, out in (([one, third], "all"), ([third], "part0")):
        with pytest.raises(RunFolderError, match=r"steps (is .* in the first|was .*, now)"):
            merge(folders, tmp_path / out)
    assert not (tmp_path / "all").exists()
    assert len(images(one)) == 24
    with pytest.raises(RunFolderError, match="no run folder"):
        merge([one, tmp_path / "nowhere"], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    assert other.exists()


def test_a_run_that_is_being_sampled_is_not_merged_into(tmp_path: Path) -> None:
    folders = parts(tmp_path)
    target = painted(tmp_path / "all", prompts=["four"])
    with target.writing(), pytest.raises(RunFolderError, match="another process"):
        merge(folders, target.folder)


def test_a_merged_run_is_as_if_all_had_been_asked_for_in_it(tmp_path: Path) -> None:
    one = painted(tmp_path / "one", prompts=["one"], shard=(0, 2))
    one.add_request(Request(prompts=["later"], seeds=[0], lams=[0]))
    other = painted(tmp_path / "other", prompts=["two"])
    merge([one.folder, other.folder], tmp_path / "all")
    merged = load_results(Store.open(tmp_path / "all"))
    assert merged.missing == load_results(one).missing == 7
    assert (tmp_path / "all" / "run.json").read_bytes() == (tmp_path / "one" / "run.json").read_bytes()


def test_relative_models_are_found_from_the_merged_run(
    tmp_path: Path, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, path in zip(("model", "anchor"), models, strict=True):
        shutil.copytree(path, tmp_path / "models" / name)
    monkeypatch.chdir(tmp_path)
    Run("run", recipe_of(("models/model", "models/anchor"))).sample(["one"], 1, [0], progress=quiet)
    merge([Path("run")], Path("deep") / "within" / "all")
    monkeypatch.chdir("/")
    run = Run(tmp_path / "deep" / "within" / "all")
    run.sample(lams=[1], progress=quiet)
    assert len(images(run.folder)) == 2


def test_a_run_that_is_merged_into_keeps_its_own_names_of_models(tmp_path: Path, models: tuple[str, str]) -> None:
    moved = [str(shutil.copytree(own, tmp_path / Path(own).name)) for own in models]
    finished(tmp_path / "one", recipe_of((moved[0], moved[1])), prompts=["one"], seeds=1, lams=[0])
    finished(tmp_path / "all", recipe_of(models), prompts=["two"], seeds=1, lams=[0])
    for own in moved:
        shutil.rmtree(own)
    merge([tmp_path / "one"], tmp_path / "all")
    assert json.loads((tmp_path / "all" / "run.json").read_text())["recipe"]["model"] == models[0]

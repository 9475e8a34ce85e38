"""A run that grows holds what it would hold if all had been asked for at once: the same files, the same table."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runs.small_runs import (
    PROMPTS,
    REWARD,
    assert_same,
    finished,
    grown,
    images,
    journalled,
    quiet,
    recipe_of,
    sample,
    stamps,
)

from deradiff.results import Results
from deradiff.runs.cells import Cell, Request, union
from deradiff.runs.merge import merge
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

Axes = dict[str, Any]
ALL: Axes = {"prompts": PROMPTS, "seeds": [0, 1], "lams": [0, 0.5, 1.5], "guidances": [1, 4]}  # 24 images
PIECES: dict[str, list[Axes]] = {
    "more lams": [{**ALL, "lams": [0, 1.5]}, {"lams": [0.5]}],
    "more prompts": [{**ALL, "prompts": PROMPTS[:1]}, {"prompts": PROMPTS[1:]}],
    "more seeds": [{**ALL, "seeds": 1}, {"seeds": 2}],
    "more guidances": [{**ALL, "guidances": [4]}, {"guidances": [1]}],
    "another order, and all that there is once more": [
        {**ALL, "prompts": PROMPTS[::-1], "seeds": [1, 0], "guidances": [4, 1]},
        ALL,
        {},
    ],
    "in odd parts": [
        {"prompts": PROMPTS[1:], "seeds": [1], "lams": [1.5], "guidances": [4]},
        {"prompts": PROMPTS[:1], "seeds": [0], "lams": [0, 1.5], "guidances": [1]},
        {"lams": [0, 0.5]},
        {**ALL, "lams": [0.5], "seeds": [1]},
        ALL,
    ],
}


def tables(run: Run) -> list[Results]:
    return [run.results(guidance) for guidance in (1, 4)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, models: tuple[str, str]) -> Run:
    """All of it, asked for at once."""
    run = grown(tmp_path_factory.mktemp("whole"), recipe_of(models), **ALL)
    run.score([REWARD, "diversity"], progress=quiet)
    return run


def assert_as(run: Run, whole: Run) -> None:
    assert images(run.folder) == images(whole.folder)
    assert len(images(run.folder)) == len(journalled(run)) == len(set(journalled(run)))
    for one, other in zip(tables(run), tables(whole), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_in_pieces_it_holds_what_it_holds_at_once(
    tmp_path: Path, recipe: Recipe, whole: Run, pieces: list[Axes]
) -> None:
    run, before = Run(tmp_path, recipe), dict[str, int]()
    for axes in pieces:
        grown(tmp_path, recipe, **axes)
        run.score(REWARD, progress=quiet)
        assert before.items() <= stamps(tmp_path).items()
        before = stamps(tmp_path)
    run.score("diversity", progress=quiet)
    assert_as(run, whole)


def test_in_shards_it_holds_what_it_holds_at_once(tmp_path: Path, recipe: Recipe, whole: Run) -> None:
    run = Run(tmp_path, recipe)
    for axes in ({**ALL, "lams": [0, 1.5]}, {"lams": [0.5]}, ALL):
        for shard in (2, 0, 1):
            grown(tmp_path, recipe, (shard, 3), **axes)
    assert len(run.store.journals()) == 3
    run.score([REWARD, "diversity"], progress=quiet)
    assert_as(run, whole)


def test_merged_from_parts_it_holds_what_it_holds_at_once(tmp_path: Path, recipe: Recipe, whole: Run) -> None:
    parts = [{"seeds": [0]}, {"seeds": [1]}, {"lams": [0, 0.5], "guidances": [4]}]
    for number, part in enumerate(parts):
        grown(tmp_path / f"{number}", recipe, **{**ALL, **part}).score(REWARD, progress=quiet)
    assert merge([tmp_path / f"{number}" for number in range(3)], tmp_path / "all").contradictions == ()
    run = Run(tmp_path / "all")
    run.score("diversity", progress=quiet)
    assert_as(run, whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"diagnostics": False},
        {"policy": "weights"},
        {"particles": 2, "batch_size": 4},
        {"scheduler": "DDIMScheduler", "batch_size": 5},
    ],
    ids=str,
)
def test_images_do_not_depend_on_what_is_sampled_beside_them(
    tmp_path: Path, models: tuple[str, str], changes: dict[str, Any]
) -> None:
    recipe = recipe_of(models, **changes)
    axes: Axes = {**ALL, "guidances": [4]}
    whole = grown(tmp_path / "whole", recipe, **axes)
    parts: list[Axes] = [{**axes, "lams": [0.5], "seeds": [1]}, {"prompts": PROMPTS[1:]}, {"lams": [0, 1.5]}, axes]
    run = Run(tmp_path / "parts", recipe)
    for part in parts:
        grown(run.folder, recipe, **part)
    assert images(run.folder) == images(whole.folder)
    assert_same(run.results(), whole.results())
    assert len(journalled(run)) == len(set(journalled(run)))


@pytest.mark.parametrize("policy", ["reuse", "adaptive"])
def test_a_policy_whose_lams_depend_on_each_other_says_which_were_computed_together(
    tmp_path: Path, models: tuple[str, str], policy: str
) -> None:
    recipe = recipe_of(models, policy=policy, batch_size=4)
    first = finished(tmp_path, recipe, lams=[0, 1])
    before = stamps(tmp_path)
    assert first.results().details["Lams computed together"] == "{0, 1}"
    run = grown(tmp_path, recipe, lams=[0, 0.5, 1, 2])
    assert before.items() <= stamps(tmp_path).items()
    assert len(journalled(run)) == len(set(journalled(run))) == 16
    together = {cell.lam: record.info.lams for record in run.store.records() for cell in record.values()}
    assert together == {0: (0, 1), 1: (0, 1), 0.5: (0.5, 2), 2: (0.5, 2)}
    assert run.results().details["Lams computed together"] == "{0, 1} {0.5, 2}"
    assert run.results().missing == 0


def test_the_exact_policy_names_no_lams_computed_together(whole: Run) -> None:
    assert {record.info.lams for record in whole.store.records()} == {()}
    assert "Lams computed together" not in whole.results(1).details


@pytest.mark.parametrize("policy", ["exact", "weights", "reuse", "adaptive"])
def test_requests_that_overlap_are_sampled_once(tmp_path: Path, models: tuple[str, str], policy: str) -> None:
    """A run that was asked for some images, and for more, before any was there."""
    run = Run(tmp_path, recipe_of(models, policy=policy))
    asked = [run.requests(PROMPTS, seeds, lams)[0] for seeds, lams in ((1, [0, 1]), (2, [0, 0.5, 1]), (2, [0.5]))]
    sample(run, asked)
    assert sorted(journalled(run)) == sorted({run.store.keys(cell) for cell in union(asked)})
    assert len(images(tmp_path)) == 12


@pytest.mark.parametrize(
    ("policy", "batch_size"),
    [("exact", 2), ("weights", 16), ("reuse", 2), ("reuse", 16), ("adaptive", 2), ("adaptive", 16)],
)
def test_shards_of_any_policy_leave_nothing_out(
    tmp_path: Path, models: tuple[str, str], policy: str, batch_size: int
) -> None:
    recipe = recipe_of(models, policy=policy, batch_size=batch_size)
    for shard in (1, 0):
        run = finished(tmp_path, recipe, (shard, 2))
        assert run.is_complete(shard=(shard, 2))
        assert run.cost(shard=(shard, 2)).missing == 0
    assert run.is_complete()
    assert len(journalled(run)) == len(set(journalled(run))) == 12


def test_a_deleted_image_is_sampled_again_as_it_was(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe)
    run.score([REWARD, "diversity"], progress=quiet)
    before, table = images(tmp_path), run.results()
    for name in list(before)[::5]:
        (tmp_path / name).unlink()
    again = finished(tmp_path, recipe)
    assert images(tmp_path) == before
    again.score([REWARD, "diversity"], progress=quiet)
    assert_same(again.results(), table)


def test_a_deleted_image_that_was_scored_stays_in_the_table(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe)
    run.score([REWARD, "diversity"], progress=quiet)
    table = run.results()
    table.image(1, 0, 2).unlink()
    after = Run(tmp_path).results()
    assert after.images[1, 0, 2] == ""
    assert np.sum(after.images != "") == 11
    assert after.unscored == {}
    for name in (REWARD, "diversity"):
        assert np.array_equal(after.scores[name], table.scores[name])
    assert np.array_equal(np.asarray(after.path_kl), np.asarray(table.path_kl))
    assert not Run(tmp_path).is_complete()


def test_what_was_asked_for_and_is_not_there_is_counted(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe, (0, 2))
    assert run.results().missing == 6
    run.store.add_request(Request(prompts=["another"], seeds=[0, 1], lams=[0, 0.5, 3]))
    run.store.add_request(Request(prompts=["another", *PROMPTS], seeds=[1], lams=[3]))
    assert run.results().missing == 6 + 6 + 2
    grown(tmp_path, recipe)
    assert run.results().missing == 0
    assert len(images(tmp_path)) == 12 + 6 + 2


def test_what_one_guidance_lacks_does_not_count_for_another(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe, guidances=[1])
    run.store.add_request(Request(prompts=PROMPTS, seeds=[0], lams=[0], guidances=[1, 4]))
    grown(tmp_path, recipe, prompts=PROMPTS[:1], seeds=[0], lams=[0], guidances=[4])
    assert run.results(1).missing == 0
    assert run.results(4).missing == 1


def test_a_run_with_the_pipelines_own_guidance_can_grow_by_another(tmp_path: Path, recipe: Recipe) -> None:
    alone = finished(tmp_path / "alone", recipe)
    finished(tmp_path / "both", recipe)
    both = grown(tmp_path / "both", recipe, guidances=[4])
    assert both.results(4).details["Guidance"] == "4"
    assert images(alone.folder).items() < images(both.folder).items()
    assert len(images(both.folder)) == 24


def test_a_gap_is_a_gap_in_every_column(tmp_path: Path, recipe: Recipe) -> None:
    grown(tmp_path, recipe, prompts=PROMPTS, seeds=1, lams=[0, 1])
    run = grown(tmp_path, recipe, prompts=PROMPTS[:1], seeds=2, lams=[0.5])
    run.score(REWARD, progress=quiet)
    table = run.results()
    assert table.shape == (2, 2, 3)
    assert table.missing == 0  # nobody asked for these
    there = np.zeros(table.shape, bool)
    there[:, 0, [0, 2]] = True
    there[table.prompts.index(PROMPTS[0]), :, 1] = True
    for column in (table.scores[REWARD], table.path_kl, *table.paths.values()):
        assert np.array_equal(np.isfinite(np.asarray(column, float)), there)
    assert np.array_equal(table.images != "", there)


def test_a_copied_run_grows_on_beside_the_first(tmp_path: Path, recipe: Recipe) -> None:
    one = finished(tmp_path / "one", recipe, lams=[0, 1])
    shutil.copytree(one.folder, tmp_path / "other")
    grown(tmp_path / "other", recipe, lams=[0.5])
    finished(tmp_path / "one", recipe)
    assert images(tmp_path / "other") == images(tmp_path / "one")


def test_a_line_says_of_each_image_what_it_is(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe)
    lines = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    cells = {
        key: Cell(line["prompts"][prompt], *rest)
        for line in lines
        for key, (prompt, *rest) in zip(line["keys"], line["cells"], strict=True)
    }
    assert cells == {run.store.keys(cell): cell for cell in union(run.store.requests())}
    assert {path.stem for path in tmp_path.rglob("*.png")} == cells.keys()

"""Exports of real runs, read back with pyarrow and held against the journal's own table."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.sweep import subject
from tests.sweep.subject import REWARD, finished, make_plan

from deradiff.errors import PlanError
from deradiff.sweep import Journal, Plan
from deradiff.sweep import export as exporting
from deradiff.sweep.export import export
from deradiff.sweep.score import score


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folders: tuple[str, str]) -> Journal:
    plan = make_plan(folders, guidances=[1.0, 4.0], anchor_beta=2.0, lams=[-0.5, 0, 0.5, 1])
    journal = finished(tmp_path_factory.mktemp("run"), plan)
    score(journal, REWARD)
    return journal


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_every_image_has_its_row_with_what_it_scored(run: Journal, tmp_path: Path) -> None:
    assert export([run], tmp_path / "new" / "run.parquet", run.folder) == run.plan.count == 32
    table = rows(tmp_path / "new" / "run.parquet")
    assert len(table) == len({row["image"] for row in table}) == 32
    for row in table:
        results = run.results(row["guidance"])
        place = (run.plan.prompts.index(row["prompt"]), row["seed"], run.plan.lams.index(row["lam"]))
        image = run.folder / row["image"]
        assert image == results.image(*place)
        assert row[REWARD] == results.scores[REWARD][place]
        assert row[REWARD] == pytest.approx(np.asarray(Image.open(image)).mean() / 255, abs=1e-6)
        assert results.path_kl is not None
        assert row["path_kl"] == results.path_kl[place]
        assert (row["model"], row["anchor"]) == (run.plan.model, run.plan.anchor)


def test_beta_is_what_lam_stands_for_and_empty_where_it_stands_for_none(
    run: Journal, tmp_path: Path, plan: Plan
) -> None:
    export([run], tmp_path / "run.parquet", run.folder)
    assert {row["lam"]: row["beta"] for row in rows(tmp_path / "run.parquet")} == {-0.5: None, 0: None, 0.5: 4, 1: 2}
    unknown = finished(tmp_path / "unknown", plan)
    export([unknown], tmp_path / "unknown.parquet", unknown.folder)
    table = rows(tmp_path / "unknown.parquet")
    assert {row["beta"] for row in table} == {row["guidance"] for row in table} == {None}


def test_csv_says_the_same_as_parquet(run: Journal, tmp_path: Path) -> None:
    export([run], tmp_path / "run.csv", run.folder)
    export([run], tmp_path / "run.parquet", run.folder)
    with (tmp_path / "run.csv").open(newline="") as lines:
        texts = list(csv.DictReader(lines))
    for text, row in zip(texts, rows(tmp_path / "run.parquet"), strict=True):
        read = {name: type(row[name])(value) if value else None for name, value in text.items()}
        assert read == row


def test_an_unfinished_run_is_exported_as_far_as_it_is(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path / "run", plan, shard=(1, 2))
    there = [cell for batch in plan.batches((1, 2)) for cell in batch.cells(plan)]
    journal.image(there.pop(0)).unlink()
    assert 0 < export([journal], tmp_path / "run.parquet", journal.folder) == len(there) < plan.count - 1
    images = {row["image"] for row in rows(tmp_path / "run.parquet")}
    assert images == {journal.image(cell).relative_to(journal.folder).as_posix() for cell in there}
    nothing = Journal(tmp_path / "new", plan)
    assert export([nothing], tmp_path / "new.csv", nothing.folder) == 0
    assert (tmp_path / "new.csv").read_text().startswith('"model","anchor","prompt"')


def test_an_image_not_scored_yet_has_an_empty_score(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    score(journal, REWARD)
    path = journal.scores.path
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join(others))
    export([journal], tmp_path / "run.parquet", journal.folder)
    unscored = sum(row[REWARD] is None for row in rows(tmp_path / "run.parquet"))
    assert unscored == plan.batch(0).count(plan)
    path.write_text("".join([*others, first.replace('"edition":0', '"edition":1')]))  # of images that aren't there
    export([journal], tmp_path / "run.parquet", journal.folder)
    assert sum(row[REWARD] is None for row in rows(tmp_path / "run.parquet")) == unscored


def test_rows_are_held_a_chunk_at_a_time(run: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "ROWS", 10)
    export([run], tmp_path / "run.parquet", run.folder)
    with pq.ParquetFile(tmp_path / "run.parquet") as file:
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [10, 10, 10, 2]


def test_a_file_there_is_replaced_only_by_a_whole_one(
    run: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.csv").write_text("before")
    monkeypatch.setattr(type(run), "image", lambda self, cell: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export([run], tmp_path / "run.csv", run.folder)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    monkeypatch.undo()
    assert export([run], tmp_path / "run.csv", run.folder) == 32


def test_what_cannot_be_written_is_told(run: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run.xlsx", "run", "."):
        with pytest.raises(PlanError, match=r"ends in \.parquet or \.csv"):
            export([run], tmp_path / name, run.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="can't write"):
        export([run], tmp_path / "file" / "run.csv", run.folder)


def test_a_reward_named_like_a_column_is_refused(tmp_path: Path, plan: Plan) -> None:
    journal = finished(tmp_path, plan)
    score(journal, f"{subject.__name__}:brightness")
    path = journal.scores.path
    path.write_text(path.read_text().replace(REWARD, "seed"))
    with pytest.raises(PlanError, match="'seed' is named like a column"):
        export([journal], tmp_path / "run.csv", journal.folder)

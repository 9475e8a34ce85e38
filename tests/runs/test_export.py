"""Exports of real runs, read back with pyarrow and held against the run's own table."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.runs.painted import cells_of, paint, painted
from tests.runs.small_runs import REWARD, finished, quiet, recipe_of

from deradiff.errors import RunFolderError
from deradiff.runs import export as exporting
from deradiff.runs.cells import Request, image_name
from deradiff.runs.export import export
from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import journalled_images, load_results
from deradiff.runs.run import Run
from deradiff.runs.scoring import score


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, models: tuple[str, str]) -> Run:
    recipe = recipe_of(models, anchor_beta=2.0)
    own = finished(tmp_path_factory.mktemp("run"), recipe, guidances=[1.0, 4.0], lams=[-0.5, 0, 0.5, 1])
    own.score(REWARD, progress=quiet)
    return own


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_every_image_has_its_row_with_what_it_scored(run: Run, tmp_path: Path) -> None:
    assert export(run.store, tmp_path / "new" / "run.parquet") == 32
    table = rows(tmp_path / "new" / "run.parquet")
    assert len(table) == len({row["image"] for row in table}) == 32
    for row in table:
        results = run.results(row["guidance"])
        place = (results.prompts.index(row["prompt"]), row["seed"], results.lams.index(row["lam"]))
        image = run.folder / row["image"]
        assert image == results.image(*place)
        assert row[REWARD] == results.scores[REWARD][place]
        assert row[REWARD] == pytest.approx(np.asarray(Image.open(image)).mean() / 255, abs=1e-6)
        assert results.path_kl is not None
        assert row["path_kl"] == results.path_kl[place]
        assert (row["model"], row["anchor"]) == (run.recipe.model, run.recipe.anchor)


def test_beta_is_what_lam_stands_for_and_empty_where_it_stands_for_none(run: Run, tmp_path: Path) -> None:
    export(run.store, tmp_path / "run.parquet")
    assert {row["lam"]: row["beta"] for row in rows(tmp_path / "run.parquet")} == {-0.5: None, 0: None, 0.5: 4, 1: 2}
    unknown = painted(tmp_path / "unknown")
    export(unknown, tmp_path / "unknown.parquet")
    table = rows(tmp_path / "unknown.parquet")
    assert {row["beta"] for row in table} == {row["guidance"] for row in table} == {None}


def test_csv_says_the_same_as_parquet(run: Run, tmp_path: Path) -> None:
    export(run.store, tmp_path / "run.csv")
    export(run.store, tmp_path / "run.parquet")
    with (tmp_path / "run.csv").open(newline="") as lines:
        texts = list(csv.DictReader(lines))
    for text, row in zip(texts, rows(tmp_path / "run.parquet"), strict=True):
        read = {name: type(row[name])(value) if value else None for name, value in text.items()}
        assert read == row


def test_an_unfinished_run_is_exported_as_far_as_it_is(tmp_path: Path) -> None:
    store = painted(tmp_path / "run", shard=(1, 2))
    there = cells_of(store)
    store.image(there.pop(0)).unlink()
    assert export(store, tmp_path / "run.parquet") == len(there) == 17
    assert {row["image"] for row in rows(tmp_path / "run.parquet")} == {image_name(store.keys(cell)) for cell in there}
    nothing = painted(tmp_path / "new", shard=(99, 100))
    assert export(nothing, tmp_path / "new.csv") == 0
    assert (tmp_path / "new.csv").read_text().startswith('"model","anchor","prompt"')


def test_a_run_that_grew_by_a_guidance_is_exported_whole(tmp_path: Path) -> None:
    """From the pipeline's own, which is a row's empty one, to a number."""
    store = painted(tmp_path / "run")
    paint(store, Request(prompts=["one"], seeds=[0], lams=[0, 1], guidances=[4]).cells())
    assert export(store, tmp_path / "run.parquet") == 38
    assert [row["guidance"] for row in rows(tmp_path / "run.parquet")].count(None) == 36


def test_an_image_not_scored_yet_has_an_empty_score(tmp_path: Path) -> None:
    store = painted(tmp_path / "run")
    score(store, REWARD)
    truth = load_results(store)
    path = tmp_path / "run" / "rewards.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    for lines in (others, [*others, first.replace(json.loads(first)["sha256"][0], "0" * 64)]):  # of another image
        path.write_text("".join(lines))
        export(store, tmp_path / "run.parquet")
        table = rows(tmp_path / "run.parquet")
        assert sum(row[REWARD] is None for row in table) == (8 if lines is others else 1)
        for row in table:
            place = (truth.prompts.index(row["prompt"]), row["seed"], truth.lams.index(row["lam"]))
            assert row[REWARD] in (None, truth.scores[REWARD][place])


def test_rows_are_held_a_chunk_at_a_time(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "ROWS", 10)
    export(run.store, tmp_path / "run.parquet")
    with pq.ParquetFile(tmp_path / "run.parquet") as file:
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [10, 10, 10, 2]


def test_a_file_there_is_replaced_only_by_a_whole_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.csv").write_text("before")
    monkeypatch.setattr(exporting, "islice", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(run.store, tmp_path / "run.csv")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
    monkeypatch.undo()
    assert export(run.store, tmp_path / "run.csv") == 32


def test_what_cannot_be_written_is_reported(run: Run, tmp_path: Path) -> None:
    for name in ("run.xlsx", "run", "."):
        with pytest.raises(RunFolderError, match=r"ends in \.parquet or \.csv"):
            export(run.store, tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="can't write"):
        export(run.store, tmp_path / "file" / "run.csv")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
@pytest.mark.parametrize("name", ["\udcff.csv", "\udcff.parquet", "RUN.CSV"])
def test_names_of_any_bytes_and_case_are_written(run: Run, tmp_path: Path, name: str) -> None:
    assert export(run.store, tmp_path / name) == 32
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_reward_named_like_a_column_is_refused(tmp_path: Path) -> None:
    store = painted(tmp_path / "run")
    score(store, REWARD)
    path = tmp_path / "run" / "rewards.jsonl"
    path.write_text(path.read_text().replace(REWARD, "seed"))
    with pytest.raises(RunFolderError, match="'seed' is named like a column"):
        export(store, tmp_path / "run.csv")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_a_csv_is_a_formula(tmp_path: Path, start: str) -> None:
    hostile = f'{start}HYPERLINK("http://x")'
    store = painted(
        tmp_path / "run", prompts=[f"{start}1+2", "two"], seeds=[-3], lams=[-1, 0], recipe={"model": hostile}
    )
    images = list(journalled_images(store).values())
    with store.scoring() as writer:
        keys, digests = tuple(image.key for image in images), tuple(image.sha256 for image in images)
        writer.append(ScoreRecord(reward=hostile, keys=keys, sha256=digests, scores=(-1.5,) * len(images)))
    export(store, tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["model"] for row in table} == {f"'{hostile}"}
    assert {row["prompt"] for row in table} == {f"'{start}1+2", "two"}
    assert {row["seed"] for row in table} == {"-3"}
    assert {float(row[f"'{hostile}"]) for row in table} == {-1.5}
    assert {float(row["lam"]) for row in table} == {-1, 0}
    export(store, tmp_path / "run.parquet")
    assert rows(tmp_path / "run.parquet")[0]["model"] == hostile

"""Runs with particles, and what journals keep of paths."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest
from tests.runs.small_runs import contents, finished, grown, recipe_of

from deradiff.runs.export import export
from deradiff.trajectory.statistics import PathStatistics

CHANGES: dict[str, Any] = {"steps": 4, "batch_size": 6, "particles": 3}
LAMS = [0, 0.25, 0.5, 1]


def test_lams_between_are_corrected_and_the_ends_are_the_plain_ones(tmp_path: Path, models: tuple[str, str]) -> None:
    plain = finished(tmp_path / "plain", recipe_of(models, **{**CHANGES, "particles": 1}), lams=LAMS).results()
    corrected = finished(tmp_path / "corrected", recipe_of(models, **CHANGES), lams=LAMS).results()
    same = np.vectorize(lambda a, b: Path(a).read_bytes() == Path(b).read_bytes())(plain.images, corrected.images)
    assert same[:, :, [0, 3]].all()
    assert not same[:, :, 1:3].all()
    ess, ancestors = (corrected.paths[name] for name in ("ess", "ancestors"))
    assert np.isnan(ess[:, :, [0, 3]]).all()
    assert ((ess[:, :, 1:3] >= 1) & (ess[:, :, 1:3] <= 3 + 1e-9)).all()
    assert ((ancestors[:, :, 1:3] >= 1) & (ancestors[:, :, 1:3] <= 3)).all()
    assert corrected.details["Policy"] == "exact, 3 particles"
    assert plain.details["Policy"] == "exact"


def test_an_image_is_the_same_at_any_batch_size(tmp_path: Path, models: tuple[str, str]) -> None:
    made = [
        finished(tmp_path / str(size), recipe_of(models, **{**CHANGES, "batch_size": size}), lams=LAMS).results()
        for size in (3, 12)
    ]
    for name in ("q", "implicit_reward", "log_weight", "ess"):
        np.testing.assert_allclose(made[0].paths[name], made[1].paths[name], rtol=1e-2, atol=1e-2)


def test_a_deleted_image_is_made_again_as_it_was(tmp_path: Path, models: tuple[str, str]) -> None:
    run = finished(tmp_path, recipe_of(models, **CHANGES), lams=LAMS)
    before = contents(tmp_path / "images")
    run.results().image(1, 1, 1).unlink()
    grown(tmp_path, run.recipe)
    assert contents(tmp_path / "images") == before


def test_everything_that_paths_show_is_kept_and_exported(tmp_path: Path, models: tuple[str, str]) -> None:
    run = finished(tmp_path / "run", recipe_of(models, **CHANGES), lams=LAMS)
    results = run.results()
    assert {*PathStatistics.NAMES, "log_weight", "ess", "ancestors"} == {*results.paths, "path_kl"}
    assert (results.paths["log_weight"][:, :, [0, 3]] == 0).all()
    assert results.path_kl is not None
    assert (results.path_kl[:, :, 0] == 0).all()
    assert (results.paths["path_kl_to_anchor"][:, :, 3] == 0).all()
    export(run.store, tmp_path / "table.csv")
    rows = pyarrow.csv.read_csv(tmp_path / "table.csv").to_pylist()
    for name in ("q", "implicit_reward", "log_weight", "path_kl_to_anchor"):
        assert sorted(row[name] for row in rows) == pytest.approx(sorted(results.paths[name].flatten()))
    assert {row["ess"] is None for row in rows if row["lam"] in (0, 1)} == {True}


def test_a_deterministic_sampler_shows_no_implicit_reward(tmp_path: Path, models: tuple[str, str]) -> None:
    results = finished(tmp_path, recipe_of(models, scheduler="DDIMScheduler")).results()
    assert "implicit_reward" not in results.paths
    assert (results.paths["q"] > 0).all()

"""Sweeps with particles, and what journals keep of paths."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pytest
from tests.sweep.subject import contents, finished, make_plan

from deradiff.errors import PlanError
from deradiff.paths.paths import Sums
from deradiff.sweep import Journal
from deradiff.sweep.export import export

CHANGES: dict[str, Any] = {"steps": 6, "lams": [0, 0.25, 0.5, 1], "batch_size": 6, "particles": 3}


def test_lams_between_are_corrected_and_the_ends_are_the_plain_ones(tmp_path: Path, folders: tuple[str, str]) -> None:
    plain = finished(tmp_path / "plain", make_plan(folders, **{**CHANGES, "particles": 1})).results()
    corrected = finished(tmp_path / "corrected", make_plan(folders, **CHANGES)).results()
    same = np.vectorize(lambda a, b: Path(a).read_bytes() == Path(b).read_bytes())(plain.images, corrected.images)
    assert same[:, :, [0, 3]].all()
    assert not same[:, :, 1:3].all()
    ess, distinct = (corrected.paths[name] for name in ("ess", "distinct"))
    assert np.isnan(ess[:, :, [0, 3]]).all()
    assert ((ess[:, :, 1:3] >= 1) & (ess[:, :, 1:3] <= 3 + 1e-9)).all()
    assert ((distinct[:, :, 1:3] >= 1) & (distinct[:, :, 1:3] <= 3)).all()
    assert corrected.details["Mode"] == "exact, 3 particles"
    assert plain.details["Mode"] == "exact"


def test_an_image_is_the_same_in_a_batch_of_any_size(tmp_path: Path, folders: tuple[str, str]) -> None:
    made = [
        finished(tmp_path / str(size), make_plan(folders, **{**CHANGES, "batch_size": size})).results()
        for size in (3, 40)
    ]
    for name in ("q", "implicit_reward", "log_weight", "ess"):
        np.testing.assert_allclose(made[0].paths[name], made[1].paths[name], rtol=1e-2, atol=1e-2)


def test_a_damaged_image_is_made_again_as_it_was(tmp_path: Path, folders: tuple[str, str]) -> None:
    plan = make_plan(folders, **CHANGES)
    journal = finished(tmp_path, plan)
    before = contents(tmp_path)
    image = Path(journal.results().images[1, 1, 1])
    image.write_bytes(b"")
    finished(tmp_path, plan)
    assert contents(tmp_path) == before


def test_everything_that_paths_tell_is_kept_and_exported(tmp_path: Path, folders: tuple[str, str]) -> None:
    journal = finished(tmp_path / "run", make_plan(folders, **CHANGES))
    results = journal.results()
    assert {*Sums.NAMES, "log_weight", "ess", "distinct"} == {*results.paths, "path_kl"}
    assert (results.paths["log_weight"][:, :, [0, 3]] == 0).all()
    assert results.path_kl is not None
    assert (results.path_kl[:, :, 0] == 0).all()
    assert (results.paths["path_kl_to_anchor"][:, :, 3] == 0).all()
    export([journal], tmp_path / "table.csv", journal.folder)
    rows = pyarrow.csv.read_csv(tmp_path / "table.csv").to_pylist()
    for name in ("q", "implicit_reward", "log_weight", "path_kl_to_anchor"):
        assert sorted(row[name] for row in rows) == pytest.approx(sorted(results.paths[name].flatten()))
    assert {row["ess"] is None for row in rows if row["lam"] in (0, 1)} == {True}


def test_a_deterministic_sampler_tells_no_implicit_reward(tmp_path: Path, folders: tuple[str, str]) -> None:
    plan = make_plan(folders, scheduler="DDIMScheduler")
    results = finished(tmp_path, plan).results()
    assert "implicit_reward" not in results.paths
    assert (results.paths["q"] > 0).all()


def test_a_run_of_before_paths_were_kept_is_read_and_keeps_its_names(tmp_path: Path, folders: tuple[str, str]) -> None:
    plan = make_plan(folders)
    journal = finished(tmp_path, plan)
    written = journal.results()
    for file, key in ((tmp_path / "plan.json", "particles"), (tmp_path / "journal.jsonl", "paths")):
        text = file.read_text()
        assert f'"{key}"' in text
    plain = plan.model_dump_json(exclude={"particles"})
    (tmp_path / "plan.json").write_text(plain)
    assert Journal.open(tmp_path).results().images.tolist() == written.images.tolist()


def test_particles_beside_a_mode_of_fewer_calls_are_refused(folders: tuple[str, str]) -> None:
    for mode in ("reuse", "adaptive", "weights"):
        with pytest.raises(PlanError, match="particles: needs both models at every step"):
            make_plan(folders, mode=mode, particles=4)
    with pytest.raises(PlanError, match="particles"):
        make_plan(folders, particles=0)

"""The sampler in each mode: the same image in any batch, spot checks that are true, and batches that repeat exactly."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.sweep.subject import contents, finished, make_plan

from deradiff.realignment import realign
from deradiff.sweep import Cell, Plan
from deradiff.sweep.models import load_pipeline, set_scheduler
from deradiff.sweep.sample import Sampled, Sampler

MODES: dict[str, dict[str, Any]] = {"exact": {}, "reuse": {}, "adaptive": {"quality": 0.3}, "weights": {}}
CHANGES: dict[str, Any] = {"steps": 8, "lams": [0, 0.5, 1.5], "scheduler": "DDIMScheduler", "diagnostics": False}


@pytest.fixture(scope="module")
def pipe(folders: tuple[str, str]) -> Any:
    return load_pipeline(folders[0])


@contextmanager
def sampler(pipe: Any, plan: Plan) -> Iterator[Sampler]:
    set_scheduler(pipe, plan.scheduler)
    mode = "weights" if plan.mode == "weights" else "auto"
    with realign(pipe, plan.anchor, 0.0, mode=mode) as handle:
        yield Sampler(pipe, handle, plan)


def by_cell(pipe: Any, plan: Plan) -> tuple[dict[Cell, Any], list[Sampled]]:
    with sampler(pipe, plan) as own:
        made = []
        for batch in plan.batches():
            made.append(own.sample(batch))
            own.learn(json.loads(json.dumps(made[-1].info)))
    images = [image for sampled in made for image in sampled.images]
    return dict(zip(plan.cells(), images, strict=True)), made


def apart(first: Any, second: Any) -> int:
    return int(np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int)).max())


@pytest.mark.parametrize("mode", MODES)
def test_an_image_is_the_same_in_a_batch_of_any_size(pipe: Any, folders: tuple[str, str], mode: str) -> None:
    sizes = {size: make_plan(folders, **CHANGES, mode=mode, batch_size=size, **MODES[mode]) for size in (1, 16)}
    if mode == "adaptive":  # spot checks would lead each size to tolerances of its own
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("deradiff.sweep.check.Checks.wanted", lambda self, batch: [])
            made = {size: by_cell(pipe, plan)[0] for size, plan in sizes.items()}
    else:
        made = {size: by_cell(pipe, plan)[0] for size, plan in sizes.items()}
    assert sizes[1].batch_count > sizes[16].batch_count
    assert made[16].keys() == made[1].keys()
    assert max(apart(made[16][cell], made[1][cell]) for cell in made[1]) <= 1


def test_one_noise_at_every_lam_and_another_for_each_prompt_and_seed(
    pipe: Any, folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, noises = make_plan(folders, **CHANGES, batch_size=16), list[torch.Tensor]()
    prepare = pipe.prepare_latents
    monkeypatch.setattr(pipe, "prepare_latents", lambda *a, **k: noises.append(prepare(*a, **k)) or noises[-1])
    by_cell(pipe, plan)
    rows = torch.cat(noises).unflatten(0, (-1, len(plan.lams)))
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert len(rows) == len(rows[:, 0].flatten(1).unique(dim=0)) == 4


@pytest.mark.parametrize("mode", MODES)
def test_the_info_of_a_batch_repeats_it_exactly(pipe: Any, folders: tuple[str, str], mode: str) -> None:
    changes = {"scheduler": "EulerAncestralDiscreteScheduler", "seeds": [0, 1, 2], "batch_size": 2}
    plan = make_plan(folders, **CHANGES | changes | MODES[mode], mode=mode)
    _, made = by_cell(pipe, plan)
    with sampler(pipe, plan) as own:  # one that has learnt of none of them
        for batch, first in reversed(list(zip(plan.batches(), made, strict=True))):
            again = own.sample(batch, json.loads(json.dumps(first.info)))
            assert again.info == first.info
            assert [image.tobytes() for image in again.images] == [image.tobytes() for image in first.images]
    checks = [check for sampled in made for check in sampled.info["checks"]]
    assert len(checks) == (4 if mode == "adaptive" else 0) < len(made)  # a sampler that starts anew would check more


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler"])
def test_spot_checks_are_relative_errors_against_an_exact_run(
    pipe: Any, folders: tuple[str, str], scheduler: str
) -> None:
    changes = CHANGES | {"scheduler": scheduler, "lams": [0, 0.25, 0.5, 0.75, 1, 1.5], "batch_size": 4}
    plan, exact = make_plan(folders, **changes, mode="adaptive", quality=0.3), make_plan(folders, **changes)
    _, made = by_cell(pipe, plan)
    truth = dict[Cell, torch.Tensor]()
    with sampler(pipe, exact) as own:
        for batch in exact.batches():
            truth |= zip(batch.cells(exact), own.latents(batch)[0], strict=True)
    with sampler(pipe, plan) as own:
        for batch, sampled in zip(plan.batches(), made, strict=True):
            latents, info = own.latents(batch, sampled.info)
            assert info == sampled.info
            near = dict(zip(batch.cells(plan), latents, strict=True))
            for check in sampled.info["checks"]:
                cell = Cell(*check["cell"])
                error = (near[cell] - truth[cell]).norm() / truth[cell].norm()
                assert check["error"] == pytest.approx(float(error), rel=0.02, abs=1e-5)
                assert check["calls"] == plan.steps * (1 if plan.lams[cell.lam] in (0, 1) else 2)
    checks = [check for sampled in made for check in sampled.info["checks"] if plan.lams[check["cell"][3]]]
    assert max(check["error"] for check in checks) > 1e-3


def test_what_a_batch_cost_counts_its_spot_checks(pipe: Any, folders: tuple[str, str]) -> None:
    plan = make_plan(folders, **CHANGES, mode="adaptive", quality=0.3, batch_size=8)
    with sampler(pipe, plan) as own:
        batch = plan.batch(0)
        checked = own.sample(batch).info
        bare = own.sample(batch, {**checked, "checks": []}).info
    assert checked["calls"] == bare["calls"] + sum(check["calls"] for check in checked["checks"])
    assert checked["calls_published"] == 2 * plan.steps * batch.count(plan)
    assert bare["calls"] < checked["calls_published"]


def test_a_resumed_adaptive_run_ends_as_an_undisturbed_one(tmp_path: Path, folders: tuple[str, str]) -> None:
    plan = make_plan(
        folders, **CHANGES | {"diagnostics": True, "seeds": [0, 1, 2]}, mode="adaptive", quality=0.3, batch_size=2
    )
    whole = contents(finished(tmp_path, plan).folder)
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == plan.batch_count == 6
    assert len({json.loads(line)["info"]["tolerance"] for line in lines}) > 2  # spot checks did steer
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed in the middle of a record
    for image in sorted((tmp_path / "images").rglob("*.png"))[::3]:
        image.unlink()
    finished(tmp_path, plan)
    assert contents(tmp_path) == whole

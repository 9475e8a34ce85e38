"""The sampler under each policy: the same image in any block, spot checks that are true, and costs that add up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.runs.drawing import counting
from tests.runs.small_runs import PROMPTS, contents, finished, grown, pipeline, recipe_of

from deradiff.runs.cells import WHOLE, Cell, Request
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, SamplingInfo
from deradiff.runs.runner import sampling
from deradiff.runs.sampler import Sampled, sampling_blocks

POLICIES: dict[str, dict[str, Any]] = {
    "exact": {},
    "reuse": {"refresh": 2},
    "adaptive": {"target_error": 0.3},
    "weights": {},
}
CHANGES: dict[str, Any] = {"steps": 6, "scheduler": "DDIMScheduler", "diagnostics": False}
REQUEST = Request(prompts=PROMPTS, seeds=[0, 1], lams=[0, 0.5, 1.5])


def recipe_for(models: tuple[str, str], policy: str, **changes: Any) -> Recipe:
    return recipe_of(models, **{**CHANGES, **POLICIES[policy], "policy": policy, **changes})


def everything(cells: list[Cell]) -> list[Cell]:
    """Nothing is there yet."""
    return cells


def blocks_of(recipe: Recipe, request: Request = REQUEST) -> list[list[Cell]]:
    return list(sampling_blocks(recipe, [request], everything, WHOLE))


def record(block: list[Cell], info: SamplingInfo) -> CellsRecord:
    names = [f"{number:032x}" for number in range(len(block))]
    return CellsRecord.of(block, names, names, {}, info)


def by_cell(recipe: Recipe, request: Request = REQUEST) -> tuple[dict[Cell, Any], list[Sampled]]:
    images, made = dict[Cell, Any](), list[Sampled]()
    with sampling(pipeline(recipe.model), recipe.anchor, recipe) as sampler:
        for block in blocks_of(recipe, request):
            made.append(sampler.sample(block))
            images |= zip(block, made[-1].images, strict=True)
            sampler.update([record(block, made[-1].info)])
    return images, made


def apart(first: Any, second: Any) -> int:
    return int(np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int)).max())


@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_is_the_same_at_any_batch_size(
    models: tuple[str, str], policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # spot checks would lead each size to tolerances of its own
    monkeypatch.setattr("deradiff.runs.spot_checks.SpotChecks.select", lambda self, images: None)
    one, other = (by_cell(recipe_for(models, policy, batch_size=size))[0] for size in (2, 12))
    assert one.keys() == other.keys() == set(REQUEST.cells())
    assert max(apart(other[cell], one[cell]) for cell in one) <= 1  # other sizes round differently


@pytest.mark.parametrize("policy", ["exact", "weights"])
@pytest.mark.parametrize("diagnostics", [False, True])
def test_a_network_always_sees_as_many_rows(models: tuple[str, str], policy: str, diagnostics: bool) -> None:
    recipe = recipe_for(models, policy, batch_size=5, steps=2, diagnostics=diagnostics)
    with counting(pipeline(recipe.model).unet) as rows:
        by_cell(recipe, REQUEST.model_copy(update={"guidances": (4.0,)}))
    assert {size // 2 for size in rows} == {5}  # of both branches of guidance


@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_hold_what_is_missing_once_and_at_one_guidance(models: tuple[str, str], policy: str) -> None:
    request = Request(prompts=PROMPTS, seeds=[0, 1, 2], lams=[0, 0.5, 1, 2], guidances=[1, 4])
    there = {cell for number, cell in enumerate(request.cells()) if number % 3 == 0 and cell.seed < 2}

    def missing(cells: Any) -> Any:
        return (cell for cell in cells if cell not in there)

    for changes in ({}, {"particles": 2} if policy == "exact" else {}):
        recipe = recipe_for(models, policy, batch_size=6, **changes)
        blocks = list(sampling_blocks(recipe, [request], missing, WHOLE))
        cells = [cell for block in blocks for cell in block]
        assert len(cells) == len(set(cells))
        assert set(request.cells()) - there <= set(cells)
        for block in blocks:
            assert len({cell.guidance for cell in block}) == 1
            assert len({recipe.needs_particles(cell.lam) for cell in block}) == 1
            if policy in ("exact", "weights"):
                assert len(block) <= recipe.block_size(block[0].lam)
                assert not there & set(block)
            if policy == "weights":
                assert len({cell.lam for cell in block}) == 1
            if recipe.depends_on_lams:  # every (prompt, seed) of a block at the same lams
                lams = {cell.lam for cell in block}
                pairs = {(cell.prompt, cell.seed) for cell in block}
                assert len(block) == len(lams) * len(pairs)
                assert any(cell not in there for cell in block)


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_left_to_sample_where_nothing_is_missing(models: tuple[str, str], policy: str) -> None:
    none: Callable[[Any], Any] = lambda cells: iter(())  # noqa: E731
    assert list(sampling_blocks(recipe_for(models, policy), [REQUEST], none, WHOLE)) == []


def test_one_noise_at_every_lam_and_guidance_and_another_for_each_prompt_and_seed(
    models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(models, "exact", batch_size=12, steps=1)
    pipe, noises = pipeline(recipe.model), list[torch.Tensor]()
    prepare = pipe.prepare_latents
    monkeypatch.setattr(pipe, "prepare_latents", lambda *a, **k: noises.append(prepare(*a, **k)) or noises[-1])
    by_cell(recipe, REQUEST.model_copy(update={"guidances": (1.0, 4.0)}))
    rows = torch.stack(noises).unflatten(1, (4, 3))  # guidances, (prompt, seed) pairs, lams
    assert torch.equal(rows, rows[:1, :, :1].expand_as(rows))
    assert len(rows[0, :, 0].flatten(1).unique(dim=0)) == 4


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler"])
def test_spot_checks_are_relative_errors_against_an_exact_run(models: tuple[str, str], scheduler: str) -> None:
    request = REQUEST.model_copy(update={"lams": (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)})
    recipe = recipe_for(models, "adaptive", scheduler=scheduler, batch_size=4)
    exact = recipe_for(models, "exact", scheduler=scheduler, batch_size=4)
    truth, near, checks = dict[Cell, torch.Tensor](), dict[Cell, torch.Tensor](), dict[Cell, Any]()
    with sampling(pipeline(exact.model), exact.anchor, exact) as sampler:
        for block in blocks_of(exact, request):
            truth |= zip(block, sampler.latents(block)[0], strict=True)
    with sampling(pipeline(recipe.model), recipe.anchor, recipe) as sampler:
        for block in blocks_of(recipe, request):
            latents, info = sampler.latents(block)
            near |= zip(block, latents, strict=True)
            checks |= {block[check.index]: check for check in info.spot_checks}
            sampler.update([record(block, info)])
            assert info.lams == request.lams
    assert checks
    for cell, check in checks.items():
        error = (near[cell] - truth[cell]).norm() / truth[cell].norm()
        assert check.error == pytest.approx(float(error), rel=0.02, abs=1e-5)
        assert check.nfe == recipe.steps * (1 if cell.lam in (0, 1) else 2)
    assert max(check.error for cell, check in checks.items() if cell.lam) > 1e-3


@pytest.mark.parametrize(("batch_size", "guidance"), [(3, None), (5, 4.0), (5, 1.0), (12, 1.0)])
def test_what_images_cost_does_not_count_what_blocks_are_filled_up_with(
    models: tuple[str, str], batch_size: int, guidance: float | None
) -> None:
    request = REQUEST.model_copy(update={"guidances": (guidance,), "lams": (0.0, 0.5, 1.0)})
    for changes, each in (({"diagnostics": True}, 6), ({}, 4)):  # evaluations of a (prompt, seed) at all lams, a step
        recipe = recipe_for(models, "exact", steps=2, batch_size=batch_size, **changes)
        infos = [sampled.info for sampled in by_cell(recipe, request)[1]]
        assert sum(info.nfe for info in infos) == 2 * 4 * each
        assert sum(info.nfe_published for info in infos) == 2 * 4 * 6


def test_policies_cost_what_they_say(models: tuple[str, str]) -> None:
    published = 2 * 6 * REQUEST.count

    def nfe(policy: str) -> int:
        infos = [sampled.info for sampled in by_cell(recipe_for(models, policy, batch_size=8))[1]]
        if policy != "weights":
            assert sum(info.nfe_published for info in infos) == published
        return sum(info.nfe for info in infos)

    assert nfe("weights") == published / 2
    assert nfe("reuse") < published
    assert nfe("adaptive") < published


def test_what_a_block_cost_does_not_count_its_spot_checks(
    models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(models, "adaptive", batch_size=8)
    checked = [sampled.info for sampled in by_cell(recipe)[1]]
    monkeypatch.setattr("deradiff.runs.spot_checks.SpotChecks.select", lambda self, images: None)
    bare = [sampled.info for sampled in by_cell(recipe)[1]]
    assert checked[0].spot_checks
    assert not bare[0].spot_checks
    assert checked[0].nfe == bare[0].nfe


def test_a_scheduler_of_two_calls_a_step_costs_two(tmp_path: Path, models: tuple[str, str]) -> None:
    run = finished(tmp_path, recipe_of(models, scheduler="HeunDiscreteScheduler", steps=3))
    infos = [record.info for record in run.store.records()]
    assert sum(info.nfe for info in infos) == sum(info.nfe_published for info in infos) == 2 * (2 * 3 - 1) * 12


def test_a_resumed_adaptive_run_ends_as_an_undisturbed_one(tmp_path: Path, models: tuple[str, str]) -> None:
    recipe = recipe_for(models, "adaptive", batch_size=2, diagnostics=True)
    axes = {"prompts": PROMPTS, "seeds": 3, "lams": [0, 0.5, 1.5]}
    grown(tmp_path, recipe, **axes)
    whole = contents(tmp_path)
    journal = tmp_path / "cells.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    assert len({json.loads(line)["info"]["tolerance"] for line in lines}) > 2  # spot checks did steer
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # killed in the middle of a record
    grown(tmp_path, recipe, **axes)
    assert contents(tmp_path) == whole

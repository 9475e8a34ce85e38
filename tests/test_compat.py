"""What is known of diffusers' classes by name, against the diffusers that is installed and what its schedulers do."""

import ast
import importlib.util
import inspect
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from tests.laws import schedules
from torch import Tensor

import deradiff
from deradiff import compat
from deradiff.noise import NoiseLevel, is_flow, is_stochastic, noise_at, noise_levels, renoises
from deradiff.trajectory.transition import draws_posterior

CLASS = re.compile(r"^class (\w+)(.*?)(?=^class |^def |^@|\Z)", re.MULTILINE | re.DOTALL)
INIT = re.compile(r"^    def __init__\((.*?)\)(?: -> [^\n]*)?:$", re.MULTILINE | re.DOTALL)


@cache
def classes(folder: str, ending: str) -> dict[str, set[str]]:
    """The classes of diffusers' files, each with the arguments of its own ``__init__``, without importing them."""
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    files = (Path(spec.origin).parent / folder).rglob("*.py")
    found = [match for file in files for match in CLASS.finditer(file.read_text(encoding="utf-8"))]
    return {match[1]: arguments(match[2]) for match in found if match[1].endswith(ending)}


def arguments(body: str) -> set[str]:
    """Of a class's ``__init__``; none where it has none of its own."""
    init = INIT.search(body)
    if init is None:
        return set()
    (function,) = ast.parse(f"def init({init[1]}): pass").body
    assert isinstance(function, ast.FunctionDef)
    return {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}


def test_every_scheduler_of_diffusers_is_known() -> None:
    names = classes("schedulers", "Scheduler").keys()
    assert len(names) > 40
    assert names - compat.known_schedulers() == set()


def test_every_pipeline_has_a_denoiser_by_a_known_name() -> None:
    pipelines = {name: parts for name, parts in classes("pipelines", "Pipeline").items() if parts}
    assert len(pipelines) > 200
    assert {name for name, parts in pipelines.items() if not parts & {*compat.DENOISERS}} == {*compat.WITHOUT_DENOISER}


@pytest.mark.parametrize("prefixes", [compat.ROWS_ARE_NOT_IMAGES, compat.SHARE_PICTURES])
def test_every_name_of_a_pipeline_is_one_of_diffusers(prefixes: tuple[str, ...]) -> None:
    names = [name for folder in ("pipelines", "modular_pipelines") for name in classes(folder, "Pipeline")]
    assert [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)] == []


@pytest.mark.parametrize("name", schedules.EVERY)
def test_what_is_said_to_draw_noise_does(name: str) -> None:
    """Steps from the same state, with torch's generator at two seeds: some draw in the middle alone."""
    found = []
    for seed in (0, 1):
        scheduler = schedules.fresh(name)
        sample = schedules.randn(1, 4, 8, 8)
        torch.manual_seed(seed)
        for timestep in schedules.timesteps_of(scheduler):
            given = schedules.network_input(scheduler, sample, timestep)
            sample = schedules.step(scheduler, 0.1 * given, timestep, sample)
        found.append(sample)
    assert is_stochastic(schedules.fresh(name)) == (not torch.equal(*found))


@pytest.mark.parametrize("name", [name for name in schedules.EVERY if "LCM" in name or "stochastic" in name])
def test_what_renoises_keeps_nothing_of_the_sample(name: str) -> None:
    """At the same predicted x_0, samples that differ go on alike."""
    assert renoises(schedules.fresh(name))


def test_a_subclass_counts_as_its_parent() -> None:
    class Mine(diffusers.DDIMScheduler):  # pyright: ignore[reportPrivateImportUsage]
        pass

    class Ours(diffusers.LCMScheduler):  # pyright: ignore[reportPrivateImportUsage]
        pass

    assert draws_posterior(Mine(clip_sample=False), 1.0)
    assert not draws_posterior(Mine(clip_sample=False), 0.0)
    assert not is_stochastic(Mine())
    assert is_stochastic(Ours())
    assert renoises(Ours())

    class MarigoldOfMine:
        pass

    class Further(MarigoldOfMine):
        pass

    assert compat.is_kind(Further(), compat.ROWS_ARE_NOT_IMAGES)


class Foreign:
    """A scheduler that diffusers doesn't have: sigma falls from 0.9, and alpha² + sigma² = 1."""

    config: ClassVar[dict[str, Any]] = {}
    num_inference_steps = 3
    timesteps = torch.tensor([900.0, 600.0, 300.0])


def test_a_foreign_scheduler_is_taken_as_it_is_registered(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "deradiff"):
        assert not is_stochastic(Foreign())
        assert not is_stochastic(Foreign())
    assert caplog.text.count("register_scheduler(Foreign") == 1

    def levels(scheduler: Foreign) -> NoiseLevel:
        sigma = torch.cat([scheduler.timesteps / 1000, torch.zeros(1)]).double()
        return NoiseLevel((1 - sigma.square()).sqrt(), sigma)

    deradiff.register_scheduler(Foreign, draws_noise=True, noise_levels=levels)
    try:
        assert is_stochastic(Foreign())
        assert not is_flow(Foreign())
        assert noise_levels(Foreign()).sigma.tolist() == pytest.approx([0.9, 0.6, 0.3, 0.0])
        assert noise_at(Foreign(), 600.0).sigma.item() == pytest.approx(0.6)
    finally:
        compat._SCHEDULERS.pop("Foreign")


def sampled(name: str, rows: list[int]) -> Tensor:
    """From the same state in every row, with a generator of its own for each row: as a sweep does."""
    scheduler = schedules.fresh(name)
    sample = schedules.randn(1, 4, 8, 8).expand(len(rows), 4, 8, 8).clone()
    generators = [torch.Generator().manual_seed(row) for row in rows]
    takes = "generator" in inspect.signature(scheduler.step).parameters
    for timestep in schedules.timesteps_of(scheduler):
        prediction = 0.1 * schedules.network_input(scheduler, sample, timestep)
        more = {"generator": generators} if takes else {}
        sample = schedules.step(scheduler, prediction, timestep, sample, **more)
    return sample


@pytest.mark.parametrize("name", schedules.EVERY)
def test_an_image_is_that_of_its_seed_alone_and_in_a_batch(name: str) -> None:
    together = sampled(name, [0, 1])
    assert torch.equal(together, sampled(name, [0, 1]))
    assert torch.allclose(together[:1], sampled(name, [0]), atol=1e-10)
    assert is_stochastic(schedules.fresh(name)) == (not torch.allclose(together[0], together[1]))


def test_schedulers_that_draw_from_a_source_of_their_own_are_known() -> None:
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "schedulers"
    using = [file for file in folder.glob("*.py") if "= BrownianTreeNoiseSampler(" in file.read_text(encoding="utf-8")]
    nodes = [node for file in using for node in ast.parse(file.read_text(encoding="utf-8")).body]
    names = {node.name for node in nodes if isinstance(node, ast.ClassDef) and node.name.endswith("Scheduler")}
    assert names == {name for name, traits in compat._SCHEDULERS.items() if traits.seeds_itself}
    assert names

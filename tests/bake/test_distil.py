"""Distillation: what it trains on, that it comes nearer than the weights bake, and that it leaves nothing behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from tests.realignment import loras
from torch import nn

import deradiff
from deradiff import ConfigError
from deradiff.anchor.inputs import DenoiserInputs
from deradiff.bake import Distillation, LoraUpdate, bake_weights, distil, distillation, measure, write_lora
from deradiff.bake.low_rank import LowRank
from deradiff.bake.teacher import RecordedCall, Teacher, step_weights
from deradiff.errors import BakeError
from deradiff.runs.recipe import Recipe

from .pipelines import PROMPTS, build, latents, lora

WARM_UP = 20  # iterations
RECIPE = Recipe(steps=3, height=32, width=32, batch_size=8)


def test_the_recorded_calls_are_the_realigned_chains_own(tmp_path: Path) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor")
    teacher = Teacher(pipe=pipe, aligned=anchor, lam=2.0, component="unet", recipe=RECIPE, guidance=1.0)
    calls = teacher.record([(PROMPTS[0], 1), (PROMPTS[1], 2)])
    assert len(calls) == 3
    reference = pipe.unet(*calls[1].inputs.args, **calls[1].inputs.kwargs)[0]
    with deradiff.realign(pipe, anchor, 1.0):
        aligned = pipe.unet(*calls[1].inputs.args, **calls[1].inputs.kwargs)[0]
    torch.testing.assert_close(calls[1].target, reference + 2.0 * (aligned - reference), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["epsilon", "v_prediction", "sample"])
def test_a_calls_weight_is_the_squared_change_of_its_steps_end(form: str) -> None:
    scheduler: Any = DDIMScheduler(prediction_type=form, clip_sample=False)  # pyright: ignore[reportArgumentType]
    scheduler.set_timesteps(5)
    x, change = torch.zeros(1, dtype=torch.float64), 1e-3
    ends = [
        [float(scheduler.step(x + error, t, x).prev_sample) for error in (0.0, change)] for t in scheduler.timesteps
    ]
    expected = torch.tensor([(other - one) ** 2 for one, other in ends])
    weights = torch.tensor(step_weights(scheduler, 5))
    torch.testing.assert_close(weights, (expected / expected.mean()).float(), rtol=1e-3, atol=1e-4)


def test_a_flows_weights_are_those_of_its_equal_steps() -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(5)
    steps = scheduler.sigmas.diff().square()
    torch.testing.assert_close(torch.tensor(step_weights(scheduler, 5)), steps / steps.mean(), rtol=1e-3, atol=1e-3)


def test_distillation_comes_nearer_than_the_weights_and_leaves_the_pipe_as_it_was(tmp_path: Path) -> None:
    pipe = build()
    loras.add(pipe.unet, "style", ("to_v",), seed=9)  # a LoRA of the user's own stays active
    anchor = lora(pipe, tmp_path / "anchor")
    before, names = latents(pipe), {name for name, _ in pipe.unet.named_parameters()}
    start = bake_weights(pipe, anchor, 4.0)
    settings = Distillation(iterations=40, rank=4, learning_rate=2e-2)
    seen: list[float] = []
    result = distil(pipe, anchor, 4.0, start, PROMPTS, settings, RECIPE, 1.0, lambda share, loss: seen.append(loss))
    assert len(seen) == result.iterations == 40
    assert torch.equal(latents(pipe), before)
    assert {name for name, _ in pipe.unet.named_parameters()} == names
    errors = []
    for name, bake in (("weights", start), ("distilled", result.update)):
        write_lora(pipe, bake, tmp_path / name, card={})
        errors.append(measure(pipe, anchor, 4.0, str(tmp_path / name), PROMPTS, RECIPE, guidance=1.0).error)
    assert result.update is result.trained  # nearer on trajectories that it never saw
    assert errors[1] < errors[0]


def scaled(update: LoraUpdate, share: float) -> LoraUpdate:
    return replace(update, layers={name: LowRank(it.down, share * it.up) for name, it in update.layers.items()})


@pytest.fixture
def weak(tmp_path: Path) -> tuple[Any, str]:
    """A pipeline, and an anchor so near to it that predictions are linear in the weights between them."""
    pipe = build()
    update = bake_weights(pipe, lora(pipe, tmp_path / "strong", layers=("to_q", "conv1")), 1.0)
    write_lora(pipe, scaled(update, 0.01), tmp_path / "weak", card={})
    return pipe, str(tmp_path / "weak")


def count_steps(
    weak: tuple[Any, str], share: float, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], LoraUpdate]:
    """A distillation from a share of the anchor's update on, whose n-th step sets all factors to n.

    Returns the learning rates, of 1 at most, and what was trained.
    """
    rates: list[float] = []

    def step(student: Any, recorded: Any, optimizer: torch.optim.Optimizer) -> float:
        rates.append(optimizer.param_groups[0]["lr"])
        for parameter in student.parameters:
            parameter.data.fill_(len(rates))
        return 0.0

    monkeypatch.setattr(distillation, "_step", step)
    pipe, anchor = weak
    start, settings = bake_weights(pipe, anchor, share), Distillation(iterations=iterations, learning_rate=1.0)
    return rates, distil(pipe, anchor, 1.0, start, PROMPTS, settings, RECIPE, 1.0).trained


@pytest.mark.parametrize(("share", "distance"), [(0.5, 0.5), (0.9, 0.1), (4.0, 1.0)])
def test_the_nearer_the_start_the_smaller_the_steps(
    weak: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, share: float, distance: float
) -> None:
    """What a share s of the update misses of the change is 1 - s; no start counts as farther than the reference."""
    [rate] = count_steps(weak, share, 1, monkeypatch)[0]
    assert rate * WARM_UP == pytest.approx(distance, rel=0.1)


def test_the_learning_rate_warms_up_and_decays_and_the_last_weights_are_averaged(
    weak: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, trained = count_steps(weak, 4.0, 60, monkeypatch)
    cosine = 0.5 * (1 + torch.cos(torch.pi * torch.arange(60) / 60))
    expected = cosine * (torch.arange(1, 61) / WARM_UP).clamp(max=1)
    torch.testing.assert_close(torch.tensor(rates), expected)
    averages = {float(value) for layer in trained.layers.values() for value in (layer.up.min(), layer.down.max())}
    assert len(averages) == 1
    assert 35 < averages.pop() < 55  # of the weights 1 to 60


def test_the_loss_is_the_squared_error_by_the_weight_of_its_step() -> None:
    network, x = nn.Linear(3, 2), torch.randn(4, 3)
    inputs, target = DenoiserInputs(network, (x,), {}), torch.randn(4, 2)
    for weight in (1.0, 2.5):
        loss = distillation._loss(network, RecordedCall(inputs, target, weight))
        torch.testing.assert_close(loss, weight * nn.functional.mse_loss(network(x), target))


def test_a_bake_that_is_exact_measures_no_error_and_a_poor_one_says_so(tmp_path: Path) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor")

    def brightness(images: Any, prompts: Any) -> Any:
        return images.mean(dim=(1, 2, 3))

    exact = measure(pipe, anchor, 1.0, anchor, PROMPTS, RECIPE, guidance=1.0, rewards={"brightness": brightness})
    assert exact.error < 1e-6
    assert not exact.is_poor
    assert exact.rewards["brightness"].mean == 0
    other = measure(pipe, anchor, 1.0, lora(pipe, tmp_path / "other", seed=8), PROMPTS, RECIPE, guidance=1.0)
    assert other.is_poor
    assert "poor" in other.sentences()[-1]


def test_settings_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either seconds or iterations"):
        Distillation()
    with pytest.raises(ConfigError, match="rank is 0"):
        Distillation(seconds=1, rank=0)
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor")
    with pytest.raises(BakeError, match="got 0 prompts"):
        distil(pipe, anchor, 1.0, bake_weights(pipe, anchor, 1.0), [], Distillation(iterations=1), RECIPE)


def test_training_that_comes_no_nearer_gives_the_weights_back(tmp_path: Path) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor")
    start = bake_weights(pipe, anchor, 1.0)  # exact: nothing is nearer
    settings = Distillation(iterations=3, rank=2, learning_rate=1e-2)
    result = distil(pipe, anchor, 1.0, start, PROMPTS, settings, RECIPE, 1.0)
    assert result.update is start
    assert "not shown to be nearer" in result.sentence()


def test_a_network_in_half_precision_is_distilled_in_float32(tmp_path: Path) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor")
    pipe.to(torch.bfloat16)
    start = bake_weights(pipe, anchor, 2.0)
    result = distil(pipe, anchor, 2.0, start, PROMPTS, Distillation(iterations=4, learning_rate=1e-5), RECIPE, 1.0)
    assert {layer.down.dtype for layer in result.trained.layers.values()} == {torch.float32}


def test_a_sampler_whose_calls_belong_to_no_step_is_an_error() -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(4)
    assert len(step_weights(scheduler, 8)) == 8  # a call a branch of guidance
    with pytest.raises(BakeError, match="7 times in 4 steps"):
        step_weights(scheduler, 7)

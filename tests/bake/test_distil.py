"""Distillation: what it trains on, that it comes nearer than the weights bake, and that it leaves nothing behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from tests.realignment import loras

import deradiff
from deradiff import ConfigError
from deradiff.bake import Distillation, bake_weights, distil, measure, write_lora
from deradiff.bake.teacher import Teacher, step_weights
from deradiff.errors import BakeError
from deradiff.runs.recipe import Recipe

from .pipelines import PROMPTS, build, latents, lora

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

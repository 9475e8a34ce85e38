"""The checks that third parties run: ours pass, and what is broken is told."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tests.laws import schedules
from tests.realignment import loras
from tests.realignment.pipelines import subject
from tests.zoo import ZOO, anchor_of
from torch import Tensor

import deradiff
from deradiff.acceleration.cells import BatchedCall, Prediction, mixed, predictions
from deradiff.acceleration.policies import CallContext, active_cells
from deradiff.anchor.ensembles import AdapterToggle, SequentialEnsemble, build_ensemble
from deradiff.anchor.inputs import DenoiserInputs
from deradiff.anchor.load import Anchor
from deradiff.anchor.module_tree import ModuleTree
from deradiff.errors import ConfigError
from deradiff.rewards import load_reward
from deradiff.search.acquisition import SampleBlock, next_block
from deradiff.testing import check_acquisition, check_ensemble, check_policy, check_reward, check_scheduler

DDIM = partial(diffusers.DDIMScheduler, clip_sample=False)  # pyright: ignore[reportPrivateImportUsage]


@pytest.mark.parametrize("name", ["warmth", "saturation", "contrast", "edges"])
def test_rewards_of_ours_pass(name: str) -> None:
    check_reward(load_reward(name))


def in_place(pixels: Tensor, prompts: Any) -> Tensor:
    return pixels.mul_(0.5).mean((1, 2, 3))


def of_the_batch(pixels: Tensor, prompts: Any) -> Tensor:
    return pixels.mean((1, 2, 3)) - pixels.mean()


def at_random(pixels: Tensor, prompts: Any) -> Tensor:
    return torch.rand(len(pixels))


@pytest.mark.parametrize(
    ("reward", "broken"),
    [(in_place, "changed its pixels"), (of_the_batch, "alone and"), (at_random, "the second time")],
)
def test_a_reward_that_breaks_a_law_is_reported(reward: Callable[..., Tensor], broken: str) -> None:
    with pytest.raises(AssertionError, match=broken):
        check_reward(reward)


@pytest.mark.parametrize("name", ["DDIM", "Euler", "Euler ancestral", "LCM", "SA", "flow Euler", "DDPM"])
def test_schedulers_of_diffusers_pass(name: str) -> None:
    check_scheduler(schedules.fresh(name))


def test_a_scheduler_that_is_said_to_draw_no_noise_is_reported() -> None:
    kind = type("Quiet", (schedules.fresh("DDPM").__class__,), {})
    deradiff.register_scheduler(kind)
    with pytest.raises(AssertionError, match="do not draw noise"):
        check_scheduler(kind(clip_sample=False))


@pytest.mark.parametrize("policy", [deradiff.Exact(), deradiff.Reuse(2), deradiff.Adaptive(0.01)], ids=repr)
def test_policies_of_ours_pass(policy: Any) -> None:
    check_policy(policy, DDIM())


@dataclass(frozen=True)
class Lazy:
    """A tenth too little of everything."""

    needs_solver: bool = False

    def start(self) -> Any:
        def step(call: BatchedCall, context: CallContext) -> Prediction:
            return call.prediction(
                0.9 * mixed(call, *predictions(call, *active_cells(call, context), shared=context.shared))
            )

        return step


def test_a_policy_that_errs_is_reported() -> None:
    with pytest.raises(AssertionError, match="mean relative error"):
        check_policy(Lazy(), DDIM())


@pytest.mark.parametrize("ensemble", ["toggle", "batched"])
def test_ensembles_of_a_lora_pass(ensemble: Any) -> None:
    it = subject("sd")
    loras.add(it.pipe.unet, "mine")
    built = build_ensemble("unet", it.pipe.unet, [Anchor(name="mine", adapter="mine", undo=lambda: None)], ensemble)
    tree = ModuleTree(it.pipe.unet)
    toggles = [AdapterToggle(tree, on=on, off=off) for on, off in (([], ["mine"]), (["mine"], []))]
    models = [lambda *a, t=toggle, **k: t.run(DenoiserInputs(it.pipe.unet, a, k)) for toggle in toggles]
    check_ensemble(built, models, *call_of(it.pipe.unet))


def call_of(unet: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    sample = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    states = torch.randn(2, 7, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    return (sample, torch.tensor(10)), {"encoder_hidden_states": states, "return_dict": False}


def test_the_ensemble_of_a_full_anchor_passes_and_one_of_the_wrong_model_is_reported() -> None:
    pipe: Any = ZOO["sd"].build()
    anchor = anchor_of(pipe.unet)
    built = build_ensemble("unet", pipe.unet, [Anchor(name="full", module=anchor, undo=lambda: None)], "separate")
    check_ensemble(built, [pipe.unet, anchor], *call_of(pipe.unet))
    assert isinstance(built, SequentialEnsemble)
    wrong = SequentialEnsemble(built.tree, [built.networks[0], built.networks[0]])
    with pytest.raises(AssertionError, match="model 1 predicts otherwise"):
        check_ensemble(wrong, [pipe.unet, anchor], *call_of(pipe.unet))


def test_the_acquisition_of_a_search_passes_and_one_that_repeats_is_reported() -> None:
    check_acquisition(next_block)

    def repeating(known: np.ndarray, *others: Any) -> SampleBlock:
        return SampleBlock(range(6), range(1), (0,))

    with pytest.raises(AssertionError, match="is sampled already"):
        check_acquisition(repeating)


def test_a_name_is_not_what_it_names() -> None:
    name: Any = "warmth"
    with pytest.raises(ConfigError, match=r"expected a function .*load_reward\(NAME\), got the text 'warmth'"):
        check_reward(name)
    with pytest.raises(ConfigError, match="expected a policy"):
        check_policy(name, DDIM())
    with pytest.raises(ConfigError, match="expected a scheduler"):
        check_scheduler(name)

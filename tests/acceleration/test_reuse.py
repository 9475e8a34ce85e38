"""Reusing the anchor's difference, in sweeps and in single images, and what must not leak from one run to the next."""

import itertools
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from tests.realignment.pipelines import Subject, known, near, subject
from torch import Tensor

import deradiff
from deradiff.acceleration import Adaptive, Exact, Policy, Reuse
from deradiff.errors import RealignError

from .sweeps import IMAGES, attach, error, sweep, through

STEPS = 12
POLICIES = [Reuse(3), Adaptive(0.02)]


def long(it: Subject, lams: tuple[float, ...] = (0.0, 0.5, 1.0), **changes: Any) -> Tensor:
    return sweep(it, lams, num_inference_steps=STEPS, **changes)


@pytest.mark.parametrize("name", ["sd", "wan"])
def test_the_ends_stay_exact_and_the_middle_near(name: str) -> None:
    it = known(name)
    per_branch = 2 if name == "wan" else 1
    with attach(it) as handle:
        plain = long(it)
        errors, counts = [], []
        for refresh in (1, 2, 4):
            got, budget = through(handle, Reuse(refresh), lambda: long(it))
            for end in (0, 2):
                assert near(got[end::3], plain[end::3])
            errors.append(error(got, plain)[1::3].mean())
            counts.append(budget.nfe)
        assert errors[0] < 1e-4 < errors[1] < 0.05
        assert 1e-4 < errors[2] < 0.2
        # the first two steps, then every refresh-th and the last
        refreshed = [set(range(STEPS)), {0, *range(1, STEPS, 2)}, {0, 1, 5, 9, STEPS - 1}]
        steps = len(it.pipe.scheduler.timesteps)
        assert steps == STEPS
        for calls, own in zip(counts, refreshed, strict=True):
            assert calls == per_branch * IMAGES * (2 + 3 * (steps - 1) + len(own) - 1)


def test_the_model_nearer_in_lam_is_run() -> None:
    it, lams = known("sd"), (0.02, 0.98, 1.02)
    with attach(it, lams) as handle:
        plain = long(it, lams)
        got, _ = through(handle, Reuse(4), lambda: long(it, lams))
        assert 0 < error(got, plain).max() < 2e-3  # from the further one: 0.017


def test_single_images_take_fewer_calls_and_follow_lam() -> None:
    it = known("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=0.5) as handle:
        exact = {}
        for lam in (0.5, [0.0, 1.7], 1.0):
            handle.lam = lam
            exact[str(lam)] = it.run(num_inference_steps=STEPS)
    calls: list[int] = []
    hook = it.pipe.unet.register_forward_pre_hook(lambda network, args: calls.append(len(args[0]) // 2))
    with deradiff.realign(it.pipe, it.anchors, lam=0.5, policy=Reuse(3)) as handle:
        rows = it.run(num_inference_steps=STEPS).shape[0]
        for lam, of_a_step, where_refreshed in ((0.5, rows, rows), ([0.0, 1.7], 2, 1), (1.0, rows, 0)):
            handle.lam = lam
            calls.clear()
            assert error(it.run(num_inference_steps=STEPS), exact[str(lam)]).max() < 0.1
            assert sum(calls) == STEPS * of_a_step + 6 * where_refreshed
    hook.remove()
    assert torch.equal(it.run(), it.plain)


@pytest.mark.parametrize("policy", POLICIES)
def test_runs_leave_nothing_to_the_next(policy: Policy) -> None:
    it = subject("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=0.6, policy=policy) as handle:
        once = it.run(num_inference_steps=8)
        assert torch.equal(it.run(num_inference_steps=8), once)
        handle.lam = [0.0, 1.5]
        it.run(num_inference_steps=5)
        handle.lam = 0.6
        assert torch.equal(it.run(num_inference_steps=8), once)
        calls = itertools.count()

        def fail(*_: Any) -> None:
            if next(calls) == 8:
                raise KeyboardInterrupt

        hook = it.pipe.unet.register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            it.run(num_inference_steps=8)
        hook.remove()
        assert torch.equal(it.run(num_inference_steps=8), once)
    assert torch.equal(it.run(), it.plain)


def at_step(step: int, change: Callable[[Any, dict[str, Any]], None]) -> dict[str, Any]:
    def callback(pipe: Any, now: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if now == step:
            change(pipe, tensors)
        return tensors

    return {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}


@pytest.mark.parametrize("policy", POLICIES)
def test_lam_may_change_in_the_middle_of_a_run(policy: Policy) -> None:
    """What was recorded at another lam, such as no difference at lam = 0, is not paid back at this one."""
    it = known("sd")

    def run(handle: Any) -> Tensor:
        handle.lam = 0.0
        change = at_step(3, lambda pipe, tensors: setattr(handle, "lam", 1.5))
        return it.run(num_inference_steps=STEPS, **change)

    with deradiff.realign(it.pipe, it.anchors) as handle:
        exact = run(handle)
    with deradiff.realign(it.pipe, it.anchors, policy=policy) as handle:
        got = run(handle)
    assert error(got, exact).mean() < 0.005  # twice that where records are kept


def without_guidance(pipe: Any, tensors: dict[str, Any]) -> None:
    pipe._guidance_scale = 1.0
    tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]


@pytest.mark.parametrize("policy", POLICIES)
def test_guidance_that_ends_in_the_middle_of_a_run_is_refused(policy: Policy) -> None:
    it = known("sd")
    with attach(it) as handle:
        changes = {"num_inference_steps": STEPS, **at_step(4, without_guidance)}
        plain = sweep(it, **changes)
        got, _ = through(handle, Exact(), lambda: sweep(it, **changes))
        assert near(got, plain)
        with pytest.raises(RealignError, match=r"number of branches at step 6.*use policy=Exact"):
            through(handle, policy, lambda: sweep(it, **changes))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_branch_that_is_no_longer_called_is_missed(policy: Policy) -> None:
    it = known("lumina2")
    with attach(it) as handle:
        through(handle, policy, lambda: long(it))
        with pytest.raises(RealignError, match="number of branches"):
            through(handle, policy, lambda: long(it, cfg_trunc_ratio=0.5))
        through(handle, Exact(), lambda: long(it, cfg_trunc_ratio=0.5))


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler"])
def test_schedulers_of_several_calls_a_step_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    it = known("sd")
    options = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    scheduler = getattr(diffusers, name).from_config(it.pipe.scheduler.config, **options)
    monkeypatch.setattr(it.pipe, "scheduler", scheduler)
    with attach(it) as handle:
        for policy in POLICIES:
            with pytest.raises(RealignError, match="another scheduler, or policy=Exact"):
                through(handle, policy, lambda: sweep(it))
        assert near(through(handle, Exact(), lambda: sweep(it))[0], sweep(it))


@pytest.mark.parametrize("given", [0, -1, 1.5, "3"])
def test_refresh_is_a_number_of_steps(given: Any) -> None:
    with pytest.raises(RealignError, match="refresh is a number of steps"):
        Reuse(given)


@pytest.mark.parametrize("given", [0, 1, -0.1, 10])
def test_tolerance_is_a_share(given: Any) -> None:
    with pytest.raises(RealignError, match="between 0 and 1"):
        Adaptive(given)


@pytest.mark.parametrize("policy", ["adaptive", 0.01, Adaptive, Reuse])
def test_what_is_no_policy_is_reported_and_nothing_stays_attached(policy: Any) -> None:
    it = known("sd")
    with pytest.raises(RealignError, match=r"expected Exact\(\), Reuse\(3\) or Adaptive\(0.01\)"):
        deradiff.realign(it.pipe, it.anchors, policy=policy)
    assert torch.equal(it.run(), it.plain)

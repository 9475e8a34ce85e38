"""What paths tell, against the Gaussian kernels of the scheduler, computed by hand from what the networks predict."""

import contextlib
import copy
import inspect
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from tests.zoo import ZOO, anchor_of
from torch import Tensor

import deradiff
from deradiff.noise import noise_levels
from deradiff.realignment import observing
from deradiff.sampling import around_step
from deradiff.trajectory import DenoiserCall, PathRecorder, Paths
from deradiff.trajectory.transition import draws_posterior

STEPS = 4


class ByHand:
    """Q, path KL and L from Euler-ancestral's own sigmas, what the networks predict and the states that are visited."""

    def __init__(self, pipe: Any, guidance: float) -> None:
        self.pipe, self.guidance = pipe, guidance
        self.steps: list[tuple[Tensor, Tensor]] = []
        self.visited: list[Tensor] = []

    def __call__(self, step: DenoiserCall) -> None:
        reference, aligned = (self.guided(step.predictions[model]) for model in (0, 1))
        lam = step.lams[0]
        assert isinstance(lam, float)
        self.steps.append((reference + lam * (aligned - reference), aligned - reference))

    def keep(self, pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        self.visited.append(given["latents"].double())
        return {}

    def guided(self, output: Any) -> Tensor:
        eps = output[0].double()
        if self.guidance == 1:
            return eps
        unconditional, conditional = eps.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)

    def expected(self, start: Tensor, lam: float) -> dict[str, Tensor]:
        sigmas, states = self.pipe.scheduler.sigmas.double(), [start.double(), *self.visited]
        rho = -2 * sigmas[:-1].log()
        energy = torch.stack([difference.square().flatten(1).sum(1) for _, difference in self.steps])
        q = torch.trapezoid(energy, rho, dim=0) + energy[-1]  # the last interval, to sigma = 0, counts as of length 1
        reward = (lam - 0.5) * q
        for place, (mixture, difference) in enumerate(self.steps[:-1]):
            before, after = sigmas[place : place + 2]
            up = (after**2 * (before**2 - after**2) / before**2).sqrt()
            down = (after**2 - up**2).sqrt()
            noise = (states[place + 1] - states[place] - (down - before) * mixture) / up
            reward -= (rho[place + 1] - rho[place]).sqrt() * (noise * difference).flatten(1).sum(1)
        kl, to_anchor = 0.5 * lam**2 * q, 0.5 * (1 - lam) ** 2 * q
        return {"path_kl": kl, "path_kl_to_anchor": to_anchor, "q": q, "implicit_reward": reward}


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 2.0])
def test_paths_show_what_networks_and_sampler_did(lam: float, guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = ZOO["sd"].build()
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    settings = {**ZOO["sd"].call(2), "num_inference_steps": STEPS, "guidance_scale": guidance}
    starts: list[Tensor] = []
    prepare = pipe.prepare_latents
    monkeypatch.setattr(pipe, "prepare_latents", lambda *a, **k: starts.append(prepare(*a, **k)) or starts[-1])
    with deradiff.realign(pipe, anchor_of(pipe.unet), lam) as handle:
        by_hand = ByHand(pipe, guidance)
        with observing(handle, by_hand), handle.recording():
            generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
            pipe(**settings, generator=generators, callback_on_step_end=by_hand.keep)
    assert handle.paths is not None
    assert handle.paths.log_weight is not None
    expected = by_hand.expected(starts[0], lam)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(handle.paths, name), value, rtol=1e-4, atol=1e-2 if "im" in name else 1e-9)
    torch.testing.assert_close(handle.paths.log_weight, -0.5 * lam * (1 - lam) * expected["q"], rtol=1e-4, atol=0)


def test_paths_are_known_where_each_branch_of_guidance_is_a_call_of_its_own() -> None:
    """Wan calls twice a step; stacked by hand in one call they are the same."""
    specimen = ZOO["wan"]
    pipe: Any = specimen.build()
    with deradiff.realign(pipe, anchor_of(pipe.transformer), 0.5) as handle, handle.recording():
        pipe(**specimen.call(2), generator=[torch.Generator().manual_seed(seed) for seed in range(2)])
    paths = handle.paths
    assert paths is not None
    assert paths.path_kl is not None
    assert (paths.path_kl > 0).all()
    assert paths.implicit_reward is None  # a deterministic sampler
    torch.testing.assert_close(paths.path_kl, paths.path_kl_to_anchor)


class Bare:
    """A scheduler's loop on predictions that are given, without networks."""

    def __init__(self, scheduler: str) -> None:
        pipe: Any = ZOO["sd"].build()
        self.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
        self.scheduler.set_timesteps(6)
        self.lams = torch.tensor([0.0, 0.5, 2.0])

    def told(self, spans: dict[int, int]) -> Paths:
        """A difference of eps that stays as it is, told of at some steps for some more."""
        recorder = PathRecorder([torch.Generator()] * 3, 1)
        reference, aligned = (torch.full((3, 4, 8, 8), value) for value in (0.5, 1.5))
        mixture = reference + self.lams[:, None, None, None] * (aligned - reference)
        self.scheduler.set_timesteps(6)
        with recorder.record_steps(self.scheduler):
            for place, timestep in enumerate(self.scheduler.timesteps):
                if place in spans:
                    recorder.observe(
                        DenoiserCall(
                            component="unet",
                            sample=None,
                            timestep=timestep,
                            predictions={0: (reference,), 1: (aligned,)},
                            mixture=(mixture,),
                            lams=[self.lams],
                            steps_covered=spans[place],
                        )
                    )
                self.scheduler.step(mixture, timestep, torch.zeros_like(mixture))
        return recorder.paths()


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDIMScheduler"])
def test_predictions_that_stand_for_several_steps_count_as_if_they_were_reported_at_each(scheduler: str) -> None:
    bare = Bare(scheduler)
    each = bare.told(dict.fromkeys(range(6), 1)).path_kl
    assert each is not None
    assert each[0] == 0 < each[1] < each[2]
    for spans in ({0: 6}, {0: 1, 1: 3, 4: 2}, {0: 4, 4: 99}):
        standing = bare.told(spans)
        torch.testing.assert_close(standing.path_kl, each, rtol=1e-5, atol=0)
        assert standing.implicit_reward is None  # of differences that were not computed


@pytest.mark.parametrize(
    "scheduler",
    ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "PNDMScheduler"],
)
def test_solvers_that_call_twice_a_step_count_no_interval_twice(scheduler: str) -> None:
    bare = Bare(scheduler)
    q = bare.told(dict.fromkeys(range(20), 1)).q
    levels = noise_levels(bare.scheduler)
    rho = levels.log_snr[levels.sigma > 0]
    # a difference of eps that stays as it is: the last interval counts as of length 1 where it ends without noise
    length = rho.max() - rho.min() + float((levels.sigma == 0).any())
    assert q is not None
    torch.testing.assert_close(q / (4 * 8 * 8), length.expand(3), rtol=1e-4, atol=0)


POSTERIOR: list[tuple[Any, float, bool]] = [
    (diffusers.EulerAncestralDiscreteScheduler(), 0.0, True),
    (diffusers.DDPMScheduler(clip_sample=False), 0.0, True),
    (diffusers.DDPMScheduler(clip_sample=True), 0.0, False),
    (diffusers.DDPMScheduler(clip_sample=False, variance_type="fixed_large"), 0.0, False),
    (diffusers.DDPMScheduler(clip_sample=False, thresholding=True), 0.0, False),
    (diffusers.DDIMScheduler(clip_sample=False), 0.0, False),
    (diffusers.DDIMScheduler(clip_sample=False), 1.0, True),
    (diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", solver_order=1), 0.0, True),
    (diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), 0.0, False),
    (diffusers.DPMSolverMultistepScheduler(solver_order=1), 0.0, False),
    (diffusers.LCMScheduler(), 0.0, False),
    (diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), 0.0, False),
]


@pytest.mark.parametrize(("scheduler", "eta", "known"), POSTERIOR)
def test_the_implicit_reward_is_known_where_the_kernel_is_the_posterior(
    scheduler: Any, eta: float, known: bool
) -> None:
    assert draws_posterior(scheduler, eta) == known


def test_a_step_without_a_recorded_call_leaves_the_paths_unknown() -> None:
    paths = Bare("DDIMScheduler").told({0: 3, 4: 2})
    assert paths.path_kl is None
    assert paths.log_weight is None
    assert "not a linear combination" in str(paths.unknown_reason)


def test_a_copy_of_a_scheduler_steps_plainly_and_nothing_stays_on_either() -> None:
    scheduler, seen = diffusers.EulerDiscreteScheduler(), []

    def around(step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.append(args)
        return step(*args, **kwargs)

    with around_step(scheduler, around):
        copied = copy.deepcopy(scheduler)
        for own in (scheduler, copied):
            own.set_timesteps(2)
            for t in own.timesteps:
                own.step(torch.ones(1, 2), t, torch.ones(1, 2))
        assert inspect.signature(scheduler.step) == inspect.signature(copied.step)
    assert len(seen) == 2
    assert "step" not in vars(scheduler)
    assert copied.step_index == 2


def test_what_a_call_reported_does_not_outlive_the_next() -> None:
    pipe: Any = ZOO["sd"].build()
    settings = {**ZOO["sd"].call(1), "num_inference_steps": 2}

    def fail(*_: Any) -> Any:
        raise RuntimeError("stop")

    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5) as handle:
        with handle.recording():
            with handle.recording():
                pipe(**settings)
            pipe(**settings)  # the outer block goes on
            assert handle.paths is not None
        for spoil in ({}, {"callback_on_step_end": fail}):
            with handle.recording():
                pipe(**settings)
            assert handle.paths is not None
            with contextlib.suppress(RuntimeError):
                pipe(**settings, **spoil)
            assert handle.paths is None
    for block in (handle.recording, lambda: observing(handle, print)):
        with pytest.raises(deradiff.RealignError, match="has been removed"), block():
            pass


def test_reused_differences_show_nothing() -> None:
    pipe: Any = ZOO["sd"].build()
    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5, policy=deradiff.Reuse(3)) as handle, handle.recording():
        pipe(**{**ZOO["sd"].call(1), "num_inference_steps": 6})
    assert handle.paths is not None
    assert handle.paths.q is None
    assert "extrapolates the difference" in str(handle.paths.unknown_reason)


def test_learned_variances_are_distinguished_also_without_guidance() -> None:
    specimen = ZOO["deepfloyd"]
    pipe: Any = specimen.build()
    given = {**specimen.call(1), "guidance_scale": 1.0}
    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5) as handle, handle.recording():
        pipe(**given, generator=torch.Generator().manual_seed(0))
    assert handle.paths is not None
    assert handle.paths.unknown_reason == "it learns its variance"

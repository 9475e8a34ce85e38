"""Checks for what third parties plug in: rewards, policies, schedulers, ensembles and acquisitions.

Each raises AssertionError that says which law is broken; run them in your own tests::

    from deradiff.testing import check_reward

    def test_my_reward() -> None:
        check_reward(my_module.redness)
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deradiff.acceleration import Budget, Exact, Policy
from deradiff.anchor.ensembles import ModelEnsemble
from deradiff.anchor.inputs import DenoiserInputs
from deradiff.errors import ConfigError
from deradiff.noise import is_flow, is_stochastic, noise_levels
from deradiff.realignment import realign, sweeping
from deradiff.rewards import Reward, compute_scores
from deradiff.search.acquisition import Acquisition, SampleBlock, initial_design
from deradiff.testbed.oracle import Mixture, OracleDenoiser, OraclePipeline

_PROMPTS = ("a red circle", "a blue square on a white background", "two green triangles")
_LAMS = (0.0, 0.25, 0.5, 1.0, 1.5)
_IMAGES, _STEPS = 2, 20


def check_reward(reward: Reward, prompts: Sequence[str] = _PROMPTS, size: int = 64) -> None:
    """A reward of single images scores each by itself: whatever the others are, in whatever order, the same again.

    Args:
        reward: of pixels (N, 3, H, W) in [0, 1] and N prompts.
        prompts: to score noise images for; two or more.
        size: of the images, pixels.

    Raises:
        ConfigError: the reward's name was given.
        RewardError: the reward raised.
    """
    _check_not_name(reward, "a function of pixels and prompts, such as deradiff.load_reward(NAME)")
    pixels = torch.rand(len(prompts), 3, size, size, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    whole = compute_scores("reward", reward, pixels, prompts)
    assert torch.equal(pixels, before), "the reward changed its pixels"
    assert compute_scores("reward", reward, pixels, prompts) == whole, "the same images score otherwise the second time"
    alone = [
        compute_scores("reward", reward, pixels[[n]], [prompt])[0] for n, prompt in enumerate(prompts)
    ]  # another batch size may round differently
    assert np.allclose(alone, whole, rtol=1e-3, atol=1e-5), f"images score {alone} alone and {whole} together"
    back = compute_scores("reward", reward, pixels.flip(0), list(reversed(prompts)))
    assert np.allclose(back[::-1], whole, rtol=1e-3, atol=1e-5), "scores depend on the order of the images"


def check_scheduler(scheduler: Any, steps: int = 10) -> None:
    """Noise falls along a scheduler's timesteps, and its steps draw noise where they are said to.

    Args:
        scheduler: as pipelines have it; left as it was.
        steps: to set.
    """
    _check_not_name(scheduler, "a scheduler, such as pipe.scheduler")
    drawn: list[Tensor] = []
    for seed in (0, 1):
        copied = copy.deepcopy(scheduler)
        copied.set_timesteps(steps)
        levels = noise_levels(copied)
        sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        torch.manual_seed(seed)
        for timestep in copied.timesteps:
            scaled = copied.scale_model_input(sample, timestep) if hasattr(copied, "scale_model_input") else sample
            sample = copied.step(0.1 * scaled, timestep, sample).prev_sample
        drawn.append(sample)
    assert len(levels.sigma) == len(copied.timesteps) + 1, "expected a noise level a timestep, and that of the image"
    falls = levels.log_snr.diff().nan_to_num(nan=0.0) >= -1e-5
    assert bool(falls.all()), "the signal-to-noise ratio falls on the way to the image"
    scales = levels.alpha + levels.sigma if is_flow(copied) else levels.alpha.square() + levels.sigma.square()
    assert torch.allclose(scales, torch.ones_like(scales)), "alpha and sigma belong to another kind of schedule"
    differs = not torch.equal(*drawn)
    declared = "draw" if is_stochastic(scheduler) else "do not draw"
    assert differs == is_stochastic(scheduler), f"steps are declared to {declared} noise: deradiff.register_scheduler"


def check_policy(policy: Policy, scheduler: Any, *, tolerance: float = 0.05) -> None:
    """A policy comes near to exact evaluation with no more NFE, the same each time, on Gaussian mixtures.

    Args:
        policy: of `deradiff.Exact` and kin.
        scheduler: to sample by.
        tolerance: mean relative error of samples against exact evaluation.
    """
    _check_not_name(policy, "a policy, such as deradiff.Adaptive()")
    pipe, anchor = _oracles(scheduler)
    exact, exact_nfe = _sampled(pipe, anchor, Exact())
    samples, nfe = _sampled(pipe, anchor, policy)
    assert nfe <= exact_nfe, f"the policy takes {nfe} NFE, and exact evaluation {exact_nfe}"
    error = float(((samples - exact).norm(dim=1) / exact.norm(dim=1)).mean())
    assert error <= tolerance, f"mean relative error {error:.3g}, expected at most {tolerance:g}"
    again, _ = _sampled(pipe, anchor, policy)
    assert torch.equal(again, samples), "a second run differs: something is kept from the first"
    same, _ = _sampled(pipe, copy.deepcopy(pipe.unet), policy)
    by_image = same.reshape(_IMAGES, len(_LAMS), -1)
    spread = float((by_image - by_image[:, :1]).norm() / by_image.norm())
    assert spread <= 1e-6, f"where both models are the same, images differ by {spread:.3g} along lam"


def _check_not_name(value: object, expected: str) -> None:
    if isinstance(value, str):
        raise ConfigError(f"expected {expected}, got the text {value!r}")


def _oracles(scheduler: Any) -> tuple[Any, OracleDenoiser]:
    def mixture(shift: float) -> Mixture:
        means = torch.tensor([[-2.0, 0.5], [0.0, -1.0], [2.0, 1.0]], dtype=torch.float64)
        weights = shift * means[:, 0]
        return Mixture(log_weights=weights, means=means + shift, variances=torch.full_like(means, 0.3))

    pipe = OraclePipeline(OracleDenoiser.from_mixture(mixture(0.0), scheduler), scheduler)
    return pipe, OracleDenoiser.from_mixture(mixture(0.4), scheduler)


def _sampled(pipe: Any, anchor: Any, policy: Policy) -> tuple[Tensor, int]:
    budget = Budget(limit=100)
    lams = [*_LAMS] * _IMAGES
    generators = [torch.Generator().manual_seed(image) for image in range(_IMAGES) for _ in _LAMS]
    anchor.scheduler = pipe.scheduler
    with realign(pipe, anchor, lams) as handle, sweeping(handle, len(_LAMS), policy, budget):
        points = pipe(len(lams), num_inference_steps=_STEPS, generator=generators).images
    return points, budget.nfe


def check_ensemble(
    ensemble: ModelEnsemble,
    models: Sequence[Callable[..., Any]],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """An ensemble predicts what each of its models predicts by itself, and leaves everything as it was.

    Args:
        ensemble: of a reference and its anchors.
        models: the reference and the anchors as they are called by themselves, returning tensors or tuples of them.
        args: of a call of the denoiser.
        kwargs: likewise; ``return_dict=False`` among them where the denoiser takes it.
    """
    kwargs, denoiser = dict(kwargs or {}), ensemble.tree.denoiser
    inputs = [value.clone() for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    weights = {name: value.clone() for name, value in denoiser.state_dict().items()}
    with torch.no_grad(), ensemble.tree.running():
        expected = [_first(model(*args, **kwargs)) for model in models]
        for which in ([0], [1], list(range(len(models)))):
            outputs = ensemble.predict(DenoiserInputs(denoiser, args, kwargs), which)
            assert sorted(outputs) == which, f"asked for the models {which}, got {sorted(outputs)}"
            for index in which:
                close = torch.allclose(_first(outputs[index]), expected[index], rtol=1e-4, atol=1e-5)
                assert close, f"model {index} predicts otherwise than by itself"
    ensemble.on_run_end()
    after = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    assert all(map(torch.equal, inputs, after)), "the ensemble changed its inputs"
    state = denoiser.state_dict()
    assert state.keys() == weights.keys(), "the denoiser has other weights than before"
    assert all(torch.equal(state[name], value) for name, value in weights.items()), "the denoiser's weights changed"


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def check_acquisition(acquisition: Acquisition, prompts: int = 6, seeds: int = 2) -> None:
    """An acquisition asks within the grid, for something new each time, until it has enough.

    Args:
        acquisition: of known images (P, S, G), lams G, the answer's index, and indices it could move to.
        prompts: P.
        seeds: S.
    """
    lams = [index / 8 for index in range(9)]
    known = np.zeros((prompts, seeds, len(lams)), bool)
    block: SampleBlock | None = initial_design(prompts, lams)
    for round_number in range(known.size + 1):
        inside = (
            block.prompts.stop <= prompts and block.seeds.stop <= seeds and set(block.lams) <= set(range(len(lams)))
        )
        assert inside, f"{block} lies outside of {prompts} prompts, {seeds} seeds and {len(lams)} lams"
        part = np.ix_(block.prompts, block.seeds, block.lams)
        assert not known[part].all(), f"{block} is sampled already"
        known[part] = True
        best = (3 + round_number) % len(lams)
        block = acquisition(known, lams, best, [max(0, best - 2), min(8, best + 2)])
        if block is None:
            return
    raise AssertionError("it asks for more when everything is sampled")

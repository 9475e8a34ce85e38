"""Plain and corrected sampling of Gaussian mixtures whose optima are known, by the code that runs on real models."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import numpy as np
import torch
from exactness_distance import histogram_kl, sliced_wasserstein
from torch import Tensor

import deradiff
from deradiff.analysis.reweight import GRID, LEAST_ESS, path_weights
from deradiff.realignment import Handle
from deradiff.testbed.oracle import Mixture, OracleDenoiser, OraclePipeline, Quadratic

STEPS = 100
LAMS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
VP = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "linspace"}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler-ancestral": ("EulerAncestralDiscreteScheduler", VP),
    "DDPM": ("DDPMScheduler", {**VP, "clip_sample": False}),
    "SDE-DPM++ 2M": ("DPMSolverMultistepScheduler", {**VP, "algorithm_type": "sde-dpmsolver++"}),
    "DDIM": ("DDIMScheduler", {**VP, "clip_sample": False}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", VP),
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {}),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A reference, a reward, and the KL strength of the anchor."""

    reference: Mixture
    reward: Quadratic
    beta: float
    samples: int

    def optimum(self, lam: float) -> Mixture:
        return self.reference.tilted(self.reward, lam / self.beta)[0]


def problems() -> dict[str, Problem]:
    """From one Gaussian to eight in 64 dimensions."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    ring = Mixture(
        log_weights=torch.zeros(8, dtype=torch.float64),
        means=1.3 * torch.stack([angle.cos(), angle.sin()], dim=1),
        variances=torch.full((8, 2), 0.03, dtype=torch.float64),
    )
    one = _mixture([1.0], [[0.3]], [[0.9]])
    three = _mixture([0.5, 0.2, 0.3], [[-1.3], [0.2], [1.4]], [[0.04], [0.06], [0.09]])
    found = {
        "one Gaussian, linear": Problem(reference=one, reward=_linear(1.0), beta=0.5, samples=1000),
        "three modes, linear": Problem(reference=three, reward=_linear(1.0), beta=0.1, samples=2000),
        "three modes, quadratic": Problem(reference=three, reward=_bowl([0.2], [1.0]), beta=0.2, samples=2000),
        "ring of eight, linear": Problem(reference=ring, reward=_linear(1.0, 0.3), beta=0.15, samples=2000),
    }
    for dimensions in (16, 64):
        draw = torch.Generator().manual_seed(dimensions)
        means, slope = (torch.randn(n, dimensions, generator=draw, dtype=torch.float64) for n in (8, 1))
        spread = 0.05 + 0.5 * torch.rand(8, dimensions, generator=draw, dtype=torch.float64)
        mixture = Mixture(log_weights=torch.zeros(8, dtype=torch.float64), means=0.8 * means, variances=spread)
        reward = _linear(*(slope[0] / math.sqrt(dimensions)).tolist())
        found[f"eight modes in {dimensions}-D, linear"] = Problem(
            reference=mixture, reward=reward, beta=0.3, samples=6400 // dimensions
        )
    return found


def _mixture(weights: list[float], means: list[list[float]], variances: list[list[float]]) -> Mixture:
    return Mixture(log_weights=_double(weights).log(), means=_double(means), variances=_double(variances))


def _linear(*slope: float) -> Quadratic:
    zero = torch.zeros(len(slope), dtype=torch.float64)
    return Quadratic(slope=_double(slope), curvature=zero, centre=zero)


def _bowl(centre: list[float], curvature: list[float]) -> Quadratic:
    return Quadratic(centre=_double(centre), curvature=_double(curvature), slope=_double([0.0] * len(centre)))


def _double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Bench:
    """One problem under one scheduler."""

    def __init__(self, problem: Problem, scheduler: str) -> None:
        kind, options = SCHEDULERS[scheduler]
        self.problem, self.scheduler = problem, getattr(diffusers, kind)(**options)

    def samples(self, lam: float, particles: int, count: int, seed: int = 3) -> tuple[Tensor, Handle]:
        """Points (count, D), and the handle that tells of their paths."""
        pipe = OraclePipeline(OracleDenoiser.from_mixture(self.problem.reference, self.scheduler), self.scheduler)
        anchor = OracleDenoiser.from_mixture(self.problem.optimum(1.0), self.scheduler)
        with deradiff.realign(pipe, anchor, lam, component="unet", particles=particles) as handle, handle.recording():
            return pipe(count, STEPS, generator=torch.Generator().manual_seed(seed)).images, handle

    def from_scratch(self, lam: float, count: int, seed: int = 3) -> Tensor:
        """Points (count, D) of the exact model at beta / lam, sampled alike: what discrete steps alone cost."""
        denoiser = OracleDenoiser.from_mixture(self.problem.optimum(lam), self.scheduler)
        pipe = OraclePipeline(denoiser, self.scheduler)
        return pipe(count, STEPS, generator=torch.Generator().manual_seed(seed)).images


def rows(
    name: str,
    problem: Problem,
    scheduler: str,
    lams: Sequence[float] = LAMS,
    particles: Sequence[int | str] = ("from scratch", 1, 4, 8, 16),
) -> Iterator[dict[str, Any]]:
    """One row a lam and number of particles, and one for the exact model under the same scheduler."""
    bench, count = Bench(problem, scheduler), problem.samples
    gain = _mean_reward(problem, 1.0) - _mean_reward(problem, 0.0)
    for lam in lams:
        target = problem.optimum(lam)
        exact, again = (target.sample(count, torch.Generator().manual_seed(seed)) for seed in (1, 2))
        floor = sliced_wasserstein(exact, again)
        told = {"problem": name, "scheduler": scheduler, "lam": lam, "floor_sw2": floor}
        kl = float((target.log_prob(exact) - problem.reference.log_prob(exact)).mean())
        for kind in particles:
            row = {**told, "particles": kind}
            if isinstance(kind, int):
                points, handle = bench.samples(lam, kind, count)
                row |= _of_paths(handle, points, problem, kind, kl)
            else:
                points = bench.from_scratch(lam, count)
            row["sw2"] = sliced_wasserstein(points, exact)
            row["reward_error"] = float(problem.reward(points).mean() - _mean_reward(problem, lam)) / float(gain)
            if points.shape[1] == 1:
                row["histogram_kl"], row["floor_kl"] = histogram_kl(points, target), histogram_kl(exact, target)
            yield row


def _mean_reward(problem: Problem, lam: float) -> Tensor:
    return problem.reward(problem.optimum(lam).sample(200_000, torch.Generator().manual_seed(4))).mean()


def _of_paths(handle: Handle, points: Tensor, problem: Problem, particles: int, kl: float) -> dict[str, Any]:
    paths = handle.paths
    assert paths is not None
    if particles > 1:
        assert paths.ancestors is not None
        assert paths.ess is not None
        return {"ancestors": float(paths.ancestors.double().mean()), "ess": float(paths.ess.mean())}
    assert paths.path_kl is not None
    found: dict[str, Any] = {"path_kl": float(paths.path_kl.mean()), "exact_kl": kl}
    if paths.implicit_reward is not None:
        pair = torch.stack([paths.implicit_reward, problem.reward(points)])
        found["implicit_reward_correlation"] = float(torch.corrcoef(pair)[0, 1])
    return found


def headline() -> Iterator[dict[str, Any]]:
    """The rows that stand for all others, of many samples."""
    found = problems()
    for name, lam in (("three modes, linear", 0.25), ("ring of eight, linear", 0.5)):
        for scheduler in ("Euler-ancestral", "DDIM"):
            yield from rows(name, replace(found[name], samples=20_000), scheduler, [lam], ("from scratch", 1, 8))


def gaussian_linear_error(problem: Problem) -> float:
    """Largest difference of a realigned point to the exact model's on the same noise, over schedulers and lams."""
    benches = [Bench(problem, scheduler) for scheduler in SCHEDULERS]
    apart = [
        (bench.samples(lam, 1, 500)[0] - bench.from_scratch(lam, 500)).abs().max() for bench in benches for lam in LAMS
    ]
    return float(torch.stack(apart).max())


def curve_error(problem: Problem, images: int, replicates: int = 100) -> dict[str, Any]:
    """How well a curve from lam = 0 and 1 alone tells the exact one: of the anchor's gain, at the worst lam of [0, 1].

    Args:
        problem: the oracle.
        images: in all, half at each lam.
        replicates: independent ones, over which errors are root mean squares.
    """
    bench, seeds = Bench(problem, "Euler-ancestral"), images // 2
    columns: dict[str, list[Tensor]] = {"score": [], "implicit_reward": [], "q": []}
    for lam in (0.0, 1.0):
        points, handle = bench.samples(lam, 1, replicates * seeds, seed=5 + int(lam))
        assert handle.paths is not None
        assert handle.paths.implicit_reward is not None
        assert handle.paths.q is not None
        found = {"score": problem.reward(points)}
        found |= {"implicit_reward": handle.paths.implicit_reward, "q": handle.paths.q}
        for name, value in found.items():
            columns[name].append(value.reshape(replicates, seeds))
    tables = {name: torch.stack(values, dim=1).flatten(1).numpy() for name, values in columns.items()}
    exact = [float(_mean_reward(problem, lam)) for lam in GRID]
    weights = [path_weights(tables["implicit_reward"], tables["q"], (0.0, 1.0), lam) for lam in GRID]
    errors = np.stack([(own * tables["score"]).sum(axis=1) - r for own, r in zip(weights, exact, strict=True)])
    shares = np.stack([1 / np.square(own).sum(axis=1) for own in weights]) / images
    off = np.sqrt(np.square(errors).mean(axis=1)) / (exact[-1] - exact[0])
    return {
        "images": images,
        "worst": float(off.max()),
        "mean": float(off.mean()),
        "bias": float((errors.mean(axis=1) / (exact[-1] - exact[0]))[np.argmax(off)]),
        "worst_lam": GRID[int(np.argmax(off))],
        "trusted": float((shares.mean(axis=1) >= LEAST_ESS).mean()),
    }

"""Plain, corrected and retrained on the embedded pipeline, held against the exact optimum p_ref exp(r / beta).

The optimum is known up to Monte-Carlo error: samples of the reference with weights exp(r / beta), within a caption. The
anchors and the models from scratch are those of benchmarks/ladder/, the captions those that no training saw.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exactness_distance import energy_distance
from ladder import CAPTIONS, LADDER
from PIL import Image
from torch import Tensor

from deradiff import testbed
from deradiff.analysis.calibrate import calibrate
from deradiff.analysis.reweight import reweight
from deradiff.analysis.statistics import mean_interval
from deradiff.cli.common import progress
from deradiff.results import Results
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run
from deradiff.sampling import to_pixels

REWARDS = ("warmth", "faithfulness")
ANCHORS = tuple((beta, seed) for beta in (0.2, 0.1, 0.05) for seed in (0, 1))
LAMS = (0.25, 0.5)
PROMPTS, SEEDS, POOL, STEPS = 16, 16, 192, 20
SCHEDULER = "EulerAncestralDiscreteScheduler"


def name(beta: float, seed: int) -> str:
    """Of a model in benchmarks/ladder/."""
    return f"warmth-beta{beta:g}-seed{seed}"


def captions() -> list[str]:
    """Fresh ones, which leave size and background open."""
    seen = set(testbed.prompts(CAPTIONS, drop=1.0))
    return [text for text in testbed.prompts(10 * PROMPTS, seed=3000, drop=1.0) if text not in seen][:PROMPTS]


POOL_ANCHOR = name(0.1, 0)  # whose L the samples that tell the optimum carry


class Arms:
    """Sweeps of the embedded pipeline under one folder; those that are finished are read."""

    def __init__(self, out: Path) -> None:
        self.out, self.pipe, self.prompts = out, testbed.load_pipeline(), captions()

    def swept(
        self, kind: str, anchor: str, lams: Sequence[float], seeds: Sequence[int] = range(SEEDS), **settings: Any
    ) -> Results:
        """A sweep with its scores."""
        given = {"model": "embedded", "anchor": anchor, "steps": STEPS, "batch_size": 64, "scheduler": SCHEDULER}
        recipe = Recipe(**{**given, **settings})
        run = Run(self.out / f"{kind}-{anchor}", recipe, pipe=self.pipe, aligned=str(LADDER / anchor))
        requests = run.requests(self.prompts, seeds, lams, [1.0])
        with progress(f"{kind} {anchor}", run.cost(requests).missing) as advance:
            run.sample_requests(requests, progress=advance)
        run.score(REWARDS, progress=lambda count: None)
        return run.results()


def pictures(results: Results, prompt: int, lam: float) -> Tensor:
    """Pixels (S, D) of a caption's images at one lam."""
    files = results.images[prompt, :, results.lams.index(lam)]
    return torch.stack([to_pixels(Image.open(file)).flatten() for file in files]).double()


def held(pool: Results, beta: float, arms: dict[str, tuple[Results, float]]) -> Iterator[dict[str, Any]]:
    """Each arm, a sweep at one lam, against the optimum at beta: by images and by rewards."""
    objective = pool.scores["warmth"][:, :, 0]
    weights = torch.from_numpy(objective / beta).softmax(dim=1)
    everyone = [pictures(pool, prompt, 0.0) for prompt in range(len(pool.prompts))]
    best = {reward: (weights.numpy() * pool.scores[reward][:, :, 0]).sum(axis=1) for reward in REWARDS}
    for arm, (results, lam) in arms.items():
        place = results.lams.index(lam)
        gaps = [
            energy_distance(pictures(results, prompt, lam), everyone[prompt], weights[prompt])
            for prompt in range(len(pool.prompts))
        ]
        row: dict[str, Any] = {"arm": arm, "beta": beta, "energy_distance": told(np.array(gaps))}
        for reward in REWARDS:
            own = results.scores[reward][:, :, place].mean(axis=1)
            row[reward] = {
                "mean": float(own.mean()),
                "optimum": float(best[reward].mean()),
                "gap": told(own - best[reward]),
            }
        if np.isfinite(
            found := results.paths.get("ancestors", np.full(results.images.shape, np.nan))[:, :, place]
        ).all():
            row["ancestors"] = float(found.mean())
        yield row


def chosen_of_eight(pool: Results, lam: float) -> Results:
    """What eight images of the reference and their L would do without any mixing: one of each eight, by exp(lam L)."""
    count, rng = POOL // 8, np.random.default_rng(0)
    log_ratio = pool.paths["implicit_reward"][:, :, 0].reshape(-1, count, 8)
    drawn = (lam * log_ratio + rng.gumbel(size=log_ratio.shape)).argmax(axis=2) + 8 * np.arange(count)
    pick = {key: np.take_along_axis(pool.scores[key], drawn[..., None], axis=1) for key in REWARDS}
    images = np.take_along_axis(pool.images, drawn[..., None], axis=1)
    return replace(pool, seeds=tuple(range(count)), scores=pick, images=images, path_kl=None, paths={})


def told(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """A mean over captions with its 95 % interval."""
    found = mean_interval(values[:, None])
    return {"mean": found.mean, "low": found.low, "high": found.high}


def measured(out: Path) -> Iterator[dict[str, Any]]:
    """One entry an anchor: its arms at each lam, the curve that its ends tell, and the beta it behaves like."""
    arms = Arms(out)
    pool = arms.swept("pool", POOL_ANCHOR, lams=[0.0], seeds=range(1000, 1000 + POOL), batch_size=96)
    for beta, seed in ANCHORS:
        own = name(beta, seed)
        plain = arms.swept("plain", own, lams=[0.0, *LAMS, 1.0])
        corrected = {count: arms.swept(f"particles{count}", own, lams=LAMS, particles=count) for count in (4, 8)}
        curve = reweight(plain, "warmth", LAMS, sampled=(0.0, 1.0))
        for lam, told_curve, ess in zip(LAMS, curve.score, curve.ess, strict=True):
            target = beta / lam
            here = {"plain": (plain, lam)} | {f"k{count}": (found, lam) for count, found in corrected.items()}
            for other in (0, 1):
                here[f"scratch seed {other}"] = (arms.swept("scratch", name(target, other), lams=[1.0]), 1.0)
            here |= {"reference": (plain, 0.0), "anchor": (plain, 1.0)}
            if own == POOL_ANCHOR:
                here["one of eight of the reference by L"] = (chosen_of_eight(pool, lam), 0.0)
            yield {
                "anchor": own,
                "lam": lam,
                "arms": list(held(pool, target, here)),
                "curve_from_ends": {"warmth": told_curve.mean, "ess": ess},
            }
        found = calibrate(plain, "warmth", beta)
        yield {
            "anchor": own,
            "calibration": {
                **{key: getattr(found, key) for key in ("slope", "slope_interval", "slopes", "r2", "linearity_p")},
                "beta": found.beta,
                "beta_interval": found.beta_interval,
                "nominal": beta,
                "refusal": found.refusal,
            },
        }

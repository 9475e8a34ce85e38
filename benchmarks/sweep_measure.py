"""Measuring a case of the sweep benchmark: the published way and modes of the engine, in turn."""

import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from sweep_cases import Case
from sweep_published import Published, counting
from sweep_quality import errors, relative_error, reward_changes, rewards
from sweep_way import Way
from torch import Tensor

from deradiff.runs.cells import Cell, Request
from deradiff.runs.models import set_scheduler
from deradiff.sampling import noise_seed


def measure(pipe: Any, case: Case, anchor: Path) -> list[dict[str, Any]]:
    """A row for the published way and one a mode: costs beside the published ones, images beside the exact ones."""
    set_scheduler(pipe, case.scheduler)
    request = case.request
    published, ways = Published(pipe, anchor), {mode: Way(case, mode, anchor) for mode in case.modes}
    exact, shares = ways["exact"], min(case.repeats, *(len(way.blocks) for way in ways.values()))
    seconds, images = list[float](), dict[Cell, Tensor]()
    for share in range(shares):
        for way in ways.values():
            way.run(pipe, share, shares)
        start = time.perf_counter()
        made = _run(published, case, request, prompt=request.prompts[share * case.prompts // shares])
        seconds.append((time.perf_counter() - start) / len(made))
        images |= made
    calls, scores = 2 * case.steps * request.count, _scores(pipe, case, exact)
    rows = [
        {
            "mode": "published",
            "seconds_per_image": median(seconds),
            "calls": calls,
            "calls_by_batch": [calls / shares] * shares,
            "calls_ratio": 1.0,
            "wall_ratio": 1.0,
            "rel_error": mean(_distance(image, exact.images[cell]) for cell, image in images.items()),
        }
    ]
    for mode, way in ways.items():
        cost = {
            "mode": mode,
            "seconds_per_image": median(way.seconds),
            "calls": sum(way.calls),
            "rows": way.rows,
            "calls_ratio": calls / sum(way.calls),
            "wall_ratio": median(theirs / ours for theirs, ours in zip(seconds, way.seconds, strict=True)),
            "calls_by_batch": way.calls,
            "spot_checks": sum(len(info.spot_checks) for info in way.infos),
        }
        changes = reward_changes(_scores(pipe, case, way), scores)
        rows.append(cost | errors(way.latents(), exact.latents()) | changes)
    settings = {name: value for name, value in asdict(case).items() if name != "modes"}
    return [settings | row for row in rows]


def _run(published: Published, case: Case, request: Request, prompt: str) -> dict[Cell, Tensor]:
    """Final latents (C, side, side) of a prompt at the first, middle and last lam: every lam costs the same."""
    images = dict[Cell, Tensor]()
    with counting([published.reference, published.aligned], case.guidance) as calls:
        for lam in (request.lams[0], request.lams[case.lams // 2], request.lams[-1]):
            generator = torch.Generator().manual_seed(noise_seed(prompt, request.seeds[0]))
            settings = {"guidance": case.guidance, "steps": case.steps, "side": case.side}
            latents = published.sample(prompt, generator, lam, **settings)
            images[Cell(prompt, request.seeds[0], case.guidance, lam)] = latents[0].float().cpu()
    assert calls.count == 2 * case.steps * len(images)
    return images


def _distance(image: Tensor, exact: Tensor) -> float:
    return float(relative_error(image[None, None], exact[None, None]))


def _scores(pipe: Any, case: Case, way: Way) -> dict[str, Tensor]:
    """Rewards judge images of the embedded pipeline only, at the size it was trained for."""
    if case.pipeline != "embedded" or case.side != 8:
        return {}
    return rewards(pipe, way.latents(), [prompt for prompt in way.request.prompts for _ in way.request.seeds])

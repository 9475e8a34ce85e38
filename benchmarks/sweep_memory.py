"""Memory of both ways, each in a process of its own: bytes of weights, and the peak while a few steps are sampled."""

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from sweep_cases import Case
from sweep_pipelines import build
from sweep_published import Published
from sweep_way import Way
from torch import nn

from deradiff.realignment import realign
from deradiff.runs.models import set_scheduler

_STEPS = 2


def memory(case: Case, anchor: Path, device: str, divisor: int) -> dict[str, Any]:
    """Bytes of the denoiser's weights and of everything at its peak, ours by published, with their ratios."""
    both = []
    for ours in (True, False):
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            both.append(fresh.submit(_measure, case, anchor, device, divisor, ours).result())
    ratios = {f"{name}_ratio": both[0][name] / both[1][name] for name in both[0]}
    return {"pipeline": case.pipeline, "divisor": divisor, "ours": both[0], "published": both[1]} | ratios


def _measure(case: Case, anchor: Path, device: str, divisor: int, ours: bool) -> dict[str, int]:
    case = replace(case, steps=_STEPS, prompts=1, seeds=1)
    pipe, way = build(case.pipeline, device=device, divisor=divisor), Way(case, "exact", anchor)
    set_scheduler(pipe, case.scheduler)
    if ours:
        with realign(pipe, anchor, 0.0):
            weights = _bytes([pipe.unet])
        way.run(pipe, 0, 1)
    else:
        published = Published(pipe, anchor)
        weights = _bytes([published.reference, published.aligned])
        settings = {"guidance": case.guidance, "steps": _STEPS, "side": case.side}
        published.sample(case.request.prompts[0], torch.Generator(), 0.5, **settings)
    return {"weights": weights, "peak": _peak(device)}


def _bytes(networks: Iterable[nn.Module]) -> int:
    return sum(tensor.nbytes for network in networks for tensor in chain(network.parameters(), network.buffers()))


def _peak(device: str) -> int:
    """Of this process since it began; Linux keeps it under the name VmHWM, in KiB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

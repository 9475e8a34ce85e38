"""A specimen of the zoo made ready for laws, and the hand-made oracle that they are held against."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tests.zoo import ZOO, Specimen, anchor_of
from torch import Tensor, nn

import deradiff

torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A pipeline, an anchor for each of its denoisers, and what it makes of two prompts without us."""

    specimen: Specimen
    pipe: Any
    anchors: dict[str, nn.Module]
    plain: Tensor

    @functools.cached_property
    def aligned(self) -> Tensor:
        """What the anchors make of the two prompts in the references' place."""
        with replaced(self.pipe, self.anchors):
            return self.run()

    def run(self, n: int = 2, **changes: Any) -> Tensor:
        return sample(self.specimen, self.pipe, n, **changes)

    def run_with(self, part: str) -> Tensor:
        """What the anchor of one denoiser makes of them in its reference's place."""
        if len(self.anchors) == 1:
            return self.aligned
        with replaced(self.pipe, {part: self.anchors[part]}):
            return self.run()

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        return {name: getattr(self.pipe, name) for name in self.specimen.components}

    @property
    def learns_variance(self) -> bool:
        config = getattr(self.pipe, "scheduler", None)
        return getattr(config, "config", {}).get("variance_type") == "learned_range"


def sample(specimen: Specimen, pipe: DiffusionPipeline, n: int = 2, **changes: Any) -> Tensor:
    seeds = [torch.Generator().manual_seed(seed) for seed in range(n)]
    arguments: dict[str, Any] = {"generator": seeds if specimen.generators else seeds[0]} | specimen.call(n) | changes
    return specimen.images(pipe(**arguments))  # pyright: ignore[reportCallIssue]


def anchor(module: nn.Module, seed: int = 1) -> nn.Module:
    """An anchor; what a prior's post-processing reads outside its forward stays the reference's."""
    aligned = anchor_of(module, seed)
    for name in ("clip_mean", "clip_std"):
        if hasattr(module, name):
            getattr(aligned, name).data.copy_(getattr(module, name).data)
    return aligned


def subject(name: str) -> Subject:
    """A fresh pipeline that has run once, since a first run leaves traces of its own."""
    specimen = ZOO[name]
    pipe = specimen.build()
    anchors = {part: anchor(getattr(pipe, part)) for part in specimen.components}
    return Subject(specimen=specimen, pipe=pipe, anchors=anchors, plain=sample(specimen, pipe))


known = functools.cache(subject)
"""The same for laws that leave the pipeline as it was."""


@contextmanager
def replaced(pipe: Any, parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """Puts the anchors in the references' place."""
    saved = {name: getattr(pipe, name) for name in parts}
    try:
        for name, part in parts.items():
            setattr(pipe, name, part)
        yield
    finally:
        for name, part in saved.items():
            setattr(pipe, name, part)


@contextmanager
def by_hand(pipe: Any, anchors: Mapping[str, nn.Module], lam: Callable[[], float]) -> Iterator[None]:
    """The oracle: a plain forward, then that of a copy with the anchor's weights, and both mixed by hand."""
    modules = [getattr(pipe, name) for name in anchors]
    try:
        for module, aligned in zip(modules, anchors.values(), strict=True):
            module.forward = _mixing(module, aligned.state_dict(), lam)
        yield
    finally:
        for module in modules:
            del module.forward


def _mixing(module: nn.Module, weights: dict[str, Tensor], lam: Callable[[], float]) -> Callable[..., Any]:
    caches: dict[int, Any] = {}  # with the key's object, whose id another would have once it is gone

    @functools.cache
    def anchor() -> nn.Module:
        """A copy as the pipeline has set it up by the first call."""
        aligned = copy.deepcopy(module)
        del aligned.__dict__["forward"]
        aligned.load_state_dict(weights, strict=False)
        return aligned

    @functools.wraps(type(module).forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        state = {name: value for name, value in kwargs.items() if name.startswith("kv_cache")}
        rest = {name: value for name, value in kwargs.items() if name not in state}
        state_of_anchor = {name: _follow(caches, value) for name, value in state.items()}
        copies = copy.deepcopy((args, rest))
        aligned_network = anchor()
        reference = type(module).forward(module, *args, **rest, **state)
        aligned = aligned_network(*copies[0], **copies[1], **state_of_anchor)
        if isinstance(reference, tuple) and len(reference) == 2 and not isinstance(reference[1], Tensor):
            caches[id(reference[1])] = reference[1], aligned[1]  # a state that is handed out
        return _mix_first(reference, aligned, lam())

    return forward


def _follow(caches: dict[int, Any], theirs: Any) -> Any:
    """The anchor's own cache, in the mode and at the place where the pipeline has set its own."""
    if theirs is None or isinstance(theirs, str):
        return theirs
    _, ours = caches.setdefault(id(theirs), (theirs, copy.deepcopy(theirs)))
    for own, other in zip(getattr(ours, "caches", []), getattr(theirs, "caches", []), strict=True):
        own.mode, own.current_sample_idx = other.mode, other.current_sample_idx
    return ours


def _mix_first(reference: Any, aligned: Any, lam: float) -> Any:
    if reference is None:
        return None
    if isinstance(reference, Tensor):
        return (1 - lam) * reference + lam * aligned
    if isinstance(reference, list):
        return [_mix_first(*pair, lam) for pair in zip(reference, aligned, strict=True)]
    if isinstance(reference, tuple):
        return (_mix_first(reference[0], aligned[0], lam), *reference[1:])
    first, *_ = reference
    return type(reference)(**{**reference, first: _mix_first(reference[first], aligned[first], lam)})


def near(value: Tensor, expected: Tensor, tolerance: float = 2e-4) -> bool:
    """Equal to the rounding of fp32 over a few steps of random networks."""
    return value.shape == expected.shape and bool((value - expected).abs().max() <= tolerance * expected.abs().max())


def way_of(name: str) -> dict[str, Any]:
    """What to realign with, so that models are held in an ensemble, or their weights interpolated."""
    return {"policy": deradiff.Weights()} if name == "weights" else {"ensemble": name}

"""Key-value caches that a network fills, returns or appends to: each model has its own, whatever lam does meanwhile."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

import deradiff

from .pipelines import anchor, near


class Cache:
    def __init__(self) -> None:
        self.mode, self.keys = "write", []


class Net(ModelMixin, ConfigMixin):
    """Adds to its output what it has kept of all inputs so far."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, kv_cache: Any = None, kv_cache_mode: str | None = None) -> Any:
        key = self.layer(x).tanh()
        if kv_cache_mode == "extract":
            return key, {"keys": [key]}
        if isinstance(kv_cache, dict) and "buffer" in kv_cache:  # filled in place
            kv_cache["buffer"] += key
            return (key + kv_cache["buffer"],)
        if isinstance(kv_cache, dict):  # handed out before, read only
            return (key + kv_cache["keys"][0],)
        if kv_cache.mode == "write":
            kv_cache.keys.append(key)
        return (key + torch.stack([*kv_cache.keys, 0 * key]).sum(0),)


class Pipe(DiffusionPipeline):
    def __init__(self, transformer: Net) -> None:
        super().__init__()
        self.register_modules(transformer=transformer)

    def __call__(self, kind: str, course: list[float], move: Any) -> Tensor:
        x, cache = torch.linspace(-1, 1, 8).reshape(2, 4), Cache()
        state: Any = {"buffer": torch.zeros(2, 4)} if kind == "in place" else cache
        for step, lam in enumerate(course):
            move(lam)
            if kind == "returned" and step == 0:
                out, state = self.transformer(x, kv_cache_mode="extract")
            else:
                cache.mode = "write" if step % 2 == 0 else "read"
                (out,) = self.transformer(x, kv_cache=state)
            x = x + out
        return x


def twins_by_hand(networks: list[Net], kind: str, course: list[float]) -> Tensor:
    """Two networks, two states, and nothing shared but x."""
    x, caches = torch.linspace(-1, 1, 8).reshape(2, 4), [Cache(), Cache()]
    states: list[Any] = [{"buffer": torch.zeros(2, 4)} for _ in networks] if kind == "in place" else list(caches)
    for step, lam in enumerate(course):
        outs = []
        for index, network in enumerate(networks):
            if kind == "returned" and step == 0:
                out, states[index] = network(x, kv_cache_mode="extract")
            else:
                caches[index].mode = "write" if step % 2 == 0 else "read"
                (out,) = network(x, kv_cache=states[index])
            outs.append(out)
        x = x + outs[0] + lam * (outs[1] - outs[0])
    return x


@pytest.mark.parametrize("kind", ["in place", "returned", "appended"])
@pytest.mark.parametrize("course", [[0.5] * 4, [0.0, 0.5, 1.0, 0.5], [1.0, 0.0, 0.5, 2.0]], ids=str)
def test_each_model_has_its_own(kind: str, course: list[float]) -> None:
    torch.manual_seed(0)
    reference = Net().eval()
    aligned: Any = anchor(reference)
    untouched = copy.deepcopy(reference)
    pipe: Any = Pipe(reference)
    with torch.no_grad(), deradiff.realign(pipe, aligned) as handle:
        for _ in range(2):  # nothing is carried from one run into the next
            mine = pipe(kind, course, lambda lam: setattr(handle, "lam", lam))
            assert near(mine, twins_by_hand([untouched, aligned], kind, course), 1e-5)
        with pytest.raises(ZeroDivisionError):
            pipe(kind, course, lambda lam: 1 / 0)
        still = SimpleNamespace(lam=0.0)
        handle.lam = 0.0
        assert torch.equal(
            pipe(kind, course, lambda lam: setattr(still, "lam", lam)),
            twins_by_hand([untouched, untouched], kind, [0.0] * 4),
        )

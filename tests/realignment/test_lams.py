"""Lams that can't be used are refused, before any network runs."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from tests.zoo import ZOO, anchor_of

import deradiff
from deradiff.errors import LamError

from .pipelines import known, subject
from .test_anchors import count_calls
from .trace import difference, snapshot

BAD: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    None,
    "much",
    "",
    [],
    [[1.0]],
    [0.5, math.nan],
    {"a": 1.0},
    [None],
    1j,
    1e308,
]


@pytest.mark.parametrize("lam", BAD, ids=repr)
def test_bad_lams(lam: Any) -> None:
    it = known("sd")
    before = snapshot(it.pipe)
    with pytest.raises(LamError):
        deradiff.realign(it.pipe, it.anchors, lam=lam)
    assert difference(before, snapshot(it.pipe)) == []
    with deradiff.realign(it.pipe, it.anchors, lam=0.25) as handle:
        with pytest.raises(LamError):
            handle.lam = lam
        assert handle.lam == 0.25


def test_a_wrong_number_of_lams_is_refused_before_any_network_runs() -> None:
    it = subject("sd")
    calls = count_calls(it)
    with deradiff.realign(it.pipe, it.anchors, lam=[0.0, 0.5, 1.0]) as handle:
        with pytest.raises(LamError, match="3 lams for 2 prompts"):
            it.run(2)
        assert calls == []
        handle.lam = [0.0, 0.5]

        def change(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            handle.lam = [0.0, 0.1, 0.2, 0.3]  # as many as rows, but two images
            return tensors

        with pytest.raises(LamError, match="4 lams for 2 prompts"):
            it.run(2, callback_on_step_end=change)
        with pytest.raises(LamError):
            it.pipe.unet(torch.randn(3, 4, 8, 8), 1, torch.randn(3, 7, 16))


def test_extrapolating_is_warned_of_once_and_interpolating_is_not(caplog: pytest.LogCaptureFixture) -> None:
    pipe: Any = ZOO["sd"].build()
    for lam, warnings in ((1.0, 0), ([0.5, 1.2], 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "deradiff"), deradiff.realign(pipe, anchor_of(pipe.unet), lam):
            pass
        assert caplog.text.count("extrapolates beyond the anchor") == warnings

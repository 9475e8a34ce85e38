"""The laws of realignment, on every specimen of the zoo."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.zoo import ZOO

import deradiff
from deradiff.errors import LamError

from .pipelines import by_hand, known, near, subject
from .trace import difference, snapshot

# Starting with the anchor alone too: plain networks, and all that fill caches.
BOTH_WAYS = {"sd", "flux", "flux2_klein_kv", "qwen_image_21", "glm_image", "anyflow_far"}
every = pytest.mark.parametrize("name", list(ZOO))


@every
def test_lam_0_is_the_reference_and_lam_1_the_anchor_bit_for_bit(name: str) -> None:
    it = known(name)
    assert not torch.equal(it.aligned, it.plain)
    with deradiff.realign(it.pipe, it.anchors, lam=0.0) as handle:
        assert torch.equal(it.run(), it.plain)
        handle.lam = 1.0
        assert torch.equal(it.run(), it.aligned)
    assert torch.equal(it.run(), it.plain)


@every
def test_predictions_are_mixed_as_by_hand(name: str) -> None:
    it = known(name)
    if it.learns_variance:
        pytest.skip("the variance is mixed too: see test_variance.py")
    lam = 1.7  # other lams: see test_schedulers.py
    with by_hand(it.pipe, it.anchors, lambda: lam):
        expected = it.run()
    with deradiff.realign(it.pipe, it.anchors, lam=lam):
        assert near(it.run(), expected)
    assert not near(expected, it.plain)


@every
def test_a_lone_network_is_taken_for_the_denoiser_it_was_made_for(name: str) -> None:
    it = known(name)
    for part, network in it.anchors.items():
        expected = it.run_with(part)
        before = snapshot(it.pipe)
        with deradiff.realign(it.pipe, network, lam=1.0) as handle:
            assert handle.components == (part,)
            assert torch.equal(it.run(), expected)
        assert difference(before, snapshot(it.pipe)) == []


@every
def test_one_lam_an_image_equals_separate_runs(name: str) -> None:
    it = known(name)
    n = 3 if it.specimen.prompts or len(it.run(3)) == 3 else 2
    lams = [1.0, 0.9 if it.learns_variance else 2.0, 0.0][:n]
    with deradiff.realign(it.pipe, it.anchors) as handle:
        separate = []
        for lam in lams:
            handle.lam = lam
            separate.append(it.run(n))
        handle.lam = lams
        if name == "glm_image":  # fills its caches one image at a time
            with pytest.raises(LamError, match="batch of 1 rows"):
                it.run(n)
            return
        together = it.run(n)
    assert all(near(image, separate[row][row]) for row, image in enumerate(together))


@every
def test_nothing_is_left_behind(name: str) -> None:
    it = known(name)
    before = snapshot(it.pipe)
    handle = deradiff.realign(it.pipe, it.anchors, lam=0.7)
    it.run()
    handle.remove()
    assert difference(before, snapshot(it.pipe)) == []


@every
def test_nothing_is_left_behind_when_the_anchor_fails_in_its_turn(name: str) -> None:
    it = subject(name)
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == limit:
            raise KeyboardInterrupt

    hooks = [module.register_forward_pre_hook(fail) for module in it.denoisers.values()]
    limit = 1
    with pytest.raises(KeyboardInterrupt):
        it.run()
    before = snapshot(it.pipe, identity=False)
    calls.clear()
    limit = 2  # the first call is the reference's
    with pytest.raises(KeyboardInterrupt), deradiff.realign(it.pipe, it.anchors, lam=0.5):
        it.run()
    assert difference(before, snapshot(it.pipe, identity=False)) == []
    for hook in hooks:
        hook.remove()
    assert torch.equal(it.run(), it.plain)


@every
def test_lam_may_change_in_the_middle_of_a_run(name: str) -> None:
    it = known(name)
    if "callback_on_step_end" not in inspect.signature(type(it.pipe).__call__).parameters or it.learns_variance:
        pytest.skip("no callback, or another mixture")
    for course in ((0.0, 0.5, 2.0), (1.0, 0.5, 0.0)) if name in BOTH_WAYS else ((0.0, 0.5, 2.0),):
        lam = course[0]

        def move(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal lam
            lam = course[min(step + 1, 2)]  # noqa: B023
            handle.lam = lam  # noqa: B023
            return tensors

        handle: Any = SimpleNamespace()
        with by_hand(it.pipe, it.anchors, lambda: lam):  # noqa: B023
            expected = it.run(callback_on_step_end=move)
        handle = deradiff.realign(it.pipe, it.anchors, lam=course[0])
        with handle:
            assert near(it.run(callback_on_step_end=move), expected)

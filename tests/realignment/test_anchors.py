"""Several anchors, two denoisers, and weights interpolated."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deradiff
from deradiff.errors import AnchorError, LamError

from . import loras
from .pipelines import Subject, anchor, by_hand, known, near, replaced, subject
from .trace import difference, snapshot


def lerp(reference: nn.Module, aligned: list[nn.Module], lams: list[float]) -> nn.Module:
    mixed = copy.deepcopy(reference)
    with torch.no_grad():
        for name, parameter in mixed.named_parameters():
            base = parameter.clone()
            for other, lam in zip(aligned, lams, strict=True):
                parameter += lam * (other.get_parameter(name) - base)
    return mixed


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "z_image", "wan_2_2"])
def test_weights_are_those_of_a_pipeline_lerped_by_hand(name: str) -> None:
    it = subject(name)
    with deradiff.realign(it.pipe, it.anchors, policy=deradiff.Weights()) as handle:
        mine = {}
        for lam in (0.5, 2.0, 0.0):
            handle.lam = lam
            mine[lam] = it.run()
        handle.lam = [0.5, 1.0]
        calls = count_calls(it)
        with pytest.raises(LamError, match="Weights"):
            it.run()
        assert calls == []
    for lam, run in mine.items():
        parts = {part: lerp(module, [it.anchors[part]], [lam]) for part, module in it.denoisers.items()}
        with replaced(it.pipe, parts):
            assert near(run, it.run())


def count_calls(it: Subject) -> list[int]:
    calls: list[int] = []
    for module in it.denoisers.values():
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def tensor(it: Subject, *anchors: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The prediction of a denoiser alone and of each anchor alone, for one step."""
    return it.run(num_inference_steps=1), [_alone(it, given) for given in anchors]


def _alone(it: Subject, given: Any) -> torch.Tensor:
    with deradiff.realign(it.pipe, given, lam=1.0):
        return it.run(num_inference_steps=1)


@pytest.mark.parametrize("kinds", ["full full", "lora lora", "full lora", "lora full"])
def test_named_anchors_add_their_differences(kinds: str, tmp_path: Path) -> None:
    it = known("sd")
    givens: dict[str, Any] = {}
    for seed, (key, kind) in enumerate(zip(("style", "safety"), kinds.split(), strict=True)):
        lora = kind == "lora"
        given = loras.save(it.pipe, "unet", tmp_path / key, seed=seed) if lora else anchor(it.pipe.unet, seed + 5)
        givens[key] = given
    before = snapshot(it.pipe)
    reference, alone = tensor(it, *givens.values())  # one DDIM step is affine in the prediction
    ensembles = ("auto", "batched", "separate") if kinds == "lora lora" else ("auto", "separate")
    for ensemble in ensembles:
        with deradiff.realign(it.pipe, givens, lam={"style": 0.5, "safety": 0.3}, ensemble=ensemble) as handle:
            assert handle.anchors == ("style", "safety")
            expected = reference + 0.5 * (alone[0] - reference) + 0.3 * (alone[1] - reference)
            assert near(it.run(num_inference_steps=1), expected)
            handle.lam = {"style": [0.0, 1.0], "safety": 0.3}
            expected = reference + 0.3 * (alone[1] - reference)
            expected[1] += alone[0][1] - reference[1]
            assert near(it.run(num_inference_steps=1), expected)
            handle.lam = {"style": 0.0, "safety": 1.0}
            assert near(it.run(num_inference_steps=1), alone[1])
            for wrong in (
                0.5,
                {"style": 1.0},
                {"style": 1, "safety": 1, "more": 1},
                {"style": [1, 1], "safety": [1] * 3},
            ):
                with pytest.raises(LamError):
                    handle.lam = wrong
            assert handle.lam == {"style": 0.0, "safety": 1.0}
    assert difference(before, snapshot(it.pipe)) == []
    if kinds == "full full":
        with deradiff.realign(it.pipe, givens, lam={"style": 0.5, "safety": 0.3}, policy=deradiff.Weights()):
            mine = it.run()
        with replaced(it.pipe, {"unet": lerp(it.pipe.unet, list(givens.values()), [0.5, 0.3])}):
            assert near(mine, it.run())


def test_an_anchor_goes_to_the_denoiser_it_was_made_for(caplog: pytest.LogCaptureFixture) -> None:
    it = known("wan_2_2")
    with caplog.at_level(logging.WARNING, "deradiff"), deradiff.realign(it.pipe, it.anchors["transformer_2"]) as handle:
        assert handle.components == ("transformer_2",)
        assert "transformer_2" in caplog.text
        mine = it.run()
    with by_hand(it.pipe, {"transformer_2": it.anchors["transformer_2"]}, lambda: 0.5):
        assert near(mine, it.run())
    before = snapshot(it.pipe)
    halfway = lerp(it.pipe.transformer, [it.pipe.transformer_2], [0.5])
    with pytest.raises(AnchorError, match="component="):
        deradiff.realign(it.pipe, halfway)
    with pytest.raises(AnchorError, match="style"):
        deradiff.realign(it.pipe, {"transformer": it.anchors["transformer"], "style": halfway})
    assert difference(before, snapshot(it.pipe)) == []
    with deradiff.realign(it.pipe, halfway, component="transformer") as handle:
        assert handle.components == ("transformer",)


def test_a_folder_of_a_whole_pipeline_realigns_both(tmp_path: Path) -> None:
    it = known("wan_2_2")
    for part, aligned in it.anchors.items():
        aligned.save_pretrained(tmp_path / part)  # pyright: ignore[reportCallIssue]
    with deradiff.realign(it.pipe, tmp_path, lam=1.0) as handle:
        assert handle.components == ("transformer", "transformer_2")
        mine = it.run()
    with replaced(it.pipe, it.anchors):
        assert torch.equal(mine, it.run())


@pytest.mark.parametrize(("share", "clear"), [(0.3, True), (0.4, False)])
def test_an_anchor_between_two_denoisers_is_taken_where_it_is_twice_as_near_to_one(share: float, clear: bool) -> None:
    """A share of the way from one to the other, it is share / (1 - share) times as far from the first."""
    it = known("wan_2_2")
    first, second = it.pipe.transformer, it.pipe.transformer_2
    between = copy.deepcopy(first)
    with torch.no_grad():
        for own, other in zip(between.parameters(), second.parameters(), strict=True):
            own.lerp_(other, share)
    if clear:
        with deradiff.realign(it.pipe, between) as handle:
            assert handle.components == ("transformer",)
    else:
        with pytest.raises(AnchorError, match=r"as near to transformer as to transformer_2.*pass component="):
            deradiff.realign(it.pipe, between)

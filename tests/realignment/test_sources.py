"""Anchors on disk: what is read, and what is refused with nothing half-attached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.zoo import anchor_of

import deradiff
from deradiff.errors import AnchorError

from . import checkpoints, loras
from .pipelines import known, replaced, subject
from .trace import difference, snapshot


@pytest.mark.parametrize("make", [checkpoints.whole, checkpoints.denoiser, checkpoints.subfolder, checkpoints.half])
def test_full_checkpoints_are_found(make: Callable[[Path], Path], tmp_path: Path) -> None:
    it = known("sd")
    rounded = {"unet": anchor_of(it.pipe.unet).half().float()} if make is checkpoints.half else it.anchors
    with replaced(it.pipe, rounded):
        expected = it.run()
    before = snapshot(it.pipe)
    with deradiff.realign(it.pipe, make(tmp_path), lam=1.0):
        assert torch.equal(it.run(), expected)
    assert difference(before, snapshot(it.pipe)) == []


def test_a_unet_folder_inside_a_pipeline_folder_is_held_to_itsschedule(tmp_path: Path) -> None:
    folder = checkpoints.schedule(beta_end=0.02)(tmp_path)
    with pytest.raises(AnchorError, match="beta_end"):
        deradiff.realign(known("sd").pipe, folder / "unet")


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (checkpoints.schedule(prediction_type="v_prediction"), "prediction_type"),
    (checkpoints.schedule(beta_start=0.001), "beta_start"),
    (checkpoints.schedule(num_train_timesteps=500), "num_train_timesteps"),
    (checkpoints.another_architecture, "block_out_channels"),
    (checkpoints.another_class, "SD3Transformer2DModel"),
    (checkpoints.wrong_card, "Other"),
    (checkpoints.pickle_folder, "safetensors"),
    (checkpoints.pickled_lora, "pickle"),
    (checkpoints.pickle_file, "pickle"),
    (checkpoints.truncated, "safetensors"),
    (checkpoints.incomplete, "conv_out"),
    (checkpoints.truncated_lora, "safetensors"),
    (checkpoints.text_only_lora, "text encoders only"),
    (checkpoints.no_lora, "no LoRA|can't be read|doesn't fit"),
    (checkpoints.other_shape, "doesn't fit"),
    (lambda folder: folder, "found nothing"),
    (lambda folder: folder / "missing", "no such file"),
    (lambda folder: "someone/on-a-hub", "hub"),
    (lambda folder: {}, "empty mapping"),
    (lambda folder: 3, "int"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_what_does_not_fit_is_refused_and_nothing_stays(
    make: Callable[[Path], object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = make(tmp_path)
    for name in ("sd", "sd_with_style_lora"):
        it = known(name)
        before = snapshot(it.pipe)
        with pytest.raises(AnchorError, match=words):
            deradiff.realign(it.pipe, given)
        if not isinstance(given, dict):  # the first of two anchors is attached already
            with pytest.raises(AnchorError, match=words):
                deradiff.realign(it.pipe, {"good": it.anchors["unet"], "bad": given}, lam={"good": 1, "bad": 1})
        assert difference(before, snapshot(it.pipe)) == []
        assert torch.equal(it.run(), it.plain)


def test_a_lora_after_a_lora_that_fails_is_taken_off(tmp_path: Path) -> None:
    it = subject("sd")
    before = snapshot(it.pipe)
    good = loras.save(it.pipe, "unet", tmp_path / "good")
    (tmp_path / "bad").mkdir()
    with pytest.raises(AnchorError):
        deradiff.realign(it.pipe, {"a": good, "b": checkpoints.other_shape(tmp_path / "bad")}, lam={"a": 1, "b": 1})
    assert difference(before, snapshot(it.pipe)) == []


@pytest.mark.parametrize(
    "change", [{"upcast_attention": None}, {"dropout": 0.1}, {"act_fn": "swish"}, {"use_linear_projection": None}]
)
def test_configs_that_say_the_same_in_other_words_are_one_architecture(change: dict[str, Any]) -> None:
    it = subject("sd")
    network: Any = it.pipe.unet
    anchor = type(network).from_config(network.config, **change)
    anchor.load_state_dict(it.anchors["unet"].state_dict())
    with replaced(it.pipe, it.anchors):
        expected = it.run()
    with deradiff.realign(it.pipe, anchor.eval(), lam=1.0):
        assert torch.equal(it.run(), expected)


@pytest.mark.parametrize("change", [{"upcast_attention": True}, {"act_fn": "relu"}])
def test_configs_that_compute_otherwise_are_not(change: dict[str, Any]) -> None:
    it = subject("sd")
    network: Any = it.pipe.unet
    with pytest.raises(AnchorError, match=next(iter(change))):
        deradiff.realign(it.pipe, type(network).from_config(network.config, **change))

"""Folding guidance in: the student's calls are those of a pipeline without guidance, on the guided trajectory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.zoo import ZOO

import deradiff
from deradiff.bake import Distillation, bake, bake_weights, distil
from deradiff.bake.teacher import Teacher, batch_of
from deradiff.errors import BakeError
from deradiff.runs.recipe import Recipe

from .pipelines import PROMPTS, build, lora

RECIPE = Recipe(steps=3, height=32, width=32, batch_size=8)
SETTINGS = Distillation(iterations=12, rank=4, learning_rate=2e-2, fold_guidance=True)


def teacher(pipe: Any, anchor: str, guidance: float | None, *, folds: bool) -> Teacher:
    return Teacher(
        pipe=pipe, aligned=anchor, lam=0.5, component="unet", recipe=RECIPE, guidance=guidance, folds_guidance=folds
    )


def test_targets_are_the_guided_mixtures_and_inputs_those_of_a_pipeline_without_guidance(tmp_path: Path) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor")
    batch = batch_of(PROMPTS, 2, 0, 0, "train")
    guided = teacher(pipe, anchor, 3.0, folds=False).record(batch)
    folded = teacher(pipe, anchor, 3.0, folds=True).record(batch)
    assert len(folded) == len(guided) == 3
    for one, both in zip(folded, guided, strict=True):
        assert (one.inputs.rows, both.inputs.rows) == (2, 4)  # 4 -> 1: two models, two branches
        unconditional, conditional = both.target.chunk(2)
        torch.testing.assert_close(one.target, unconditional + 3.0 * (conditional - unconditional))
        torch.testing.assert_close(one.inputs.sample, both.inputs.sample[2:])
        torch.testing.assert_close(
            one.inputs.kwargs["encoder_hidden_states"], both.inputs.kwargs["encoder_hidden_states"][2:]
        )


def test_folding_at_guidance_one_equals_no_folding(tmp_path: Path) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor")
    start = bake_weights(pipe, anchor, 2.0)
    plain = distil(pipe, anchor, 2.0, start, PROMPTS, Distillation(iterations=4, rank=2), RECIPE, 1.0)
    settings = Distillation(iterations=4, rank=2, fold_guidance=True)
    folded = distil(pipe, anchor, 2.0, start, PROMPTS, settings, RECIPE, 1.0 + 1e-6)
    torch.testing.assert_close(folded.before, plain.before, rtol=1e-3, atol=1e-5)
    for name, layer in plain.trained.layers.items():
        torch.testing.assert_close(folded.trained.layers[name].dense(), layer.dense(), rtol=1e-2, atol=1e-4)


def test_a_folded_bake_is_measured_without_guidance_and_says_so(tmp_path: Path) -> None:
    pipe = build()
    anchor, out = lora(pipe, tmp_path / "anchor"), tmp_path / "out"
    quality = bake(pipe, anchor, 0.5, out, PROMPTS, distillation=SETTINGS, recipe=RECIPE, guidance=3.0)
    batch = [(text, deradiff.sampling.noise_seed(text, 0)) for text in PROMPTS]
    target = teacher(pipe, anchor, 3.0, folds=True).final_latents(batch)
    with deradiff.realign(pipe, str(out), 1.0):
        latents = teacher(pipe, anchor, 3.0, folds=True).student_latents(batch)
    error = (latents - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)
    torch.testing.assert_close(quality.errors, error, rtol=1e-3, atol=1e-4)
    with safe_open(out / "pytorch_lora_weights.safetensors", "pt") as weights:
        card = json.loads(weights.metadata()["deradiff"])
    assert card["folded_guidance"] == 3.0
    for file in ("README.md", "bake.html"):
        text = (out / file).read_text()
        assert "guided at 3" in text
        assert "guidance off (guidance_scale=1)" in text
    assert "guidance off (guidance_scale=1)" in quality.remarks[0]
    assert "guidance_scale=1.0" in (out / "README.md").read_text()
    assert "instead of four" in (out / "bake.html").read_text()


def test_what_cannot_be_folded_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    pipe, out = build(), tmp_path / "out"
    anchor = lora(pipe, tmp_path / "anchor")
    for guidance in (1.0, 0.0, None):
        with pytest.raises(BakeError, match=rf"guidance is {guidance}; .*give a scale above 1"):
            bake(pipe, anchor, 0.5, out, PROMPTS, distillation=SETTINGS, recipe=RECIPE, guidance=guidance)
    useless = Distillation(iterations=1, rank=2, learning_rate=1e-12, fold_guidance=True)
    with pytest.raises(BakeError, match="guidance couldn't be folded in: 1 steps"):
        bake(pipe, anchor, 0.5, out, PROMPTS, distillation=useless, recipe=RECIPE, guidance=3.0)
    assert not out.exists()
    consistency = ZOO["lcm"].build()
    consistency.set_progress_bar_config(disable=True)
    with pytest.raises(BakeError, match="no classifier-free guidance to fold in"):
        bake(
            consistency, lora(consistency, tmp_path / "other"), 0.5, out, PROMPTS, distillation=SETTINGS, recipe=RECIPE,
            guidance=3.0,
        )  # fmt: skip
    assert not out.exists()

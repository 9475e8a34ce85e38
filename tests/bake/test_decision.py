"""Whether a distillation is kept is decided on final latents of held-out images, beyond noise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deradiff.bake import Distillation, DistillationResult, bake, bake_weights, distil
from deradiff.bake.teacher import Batch, Teacher
from deradiff.runs.recipe import Recipe

from .pipelines import PROMPTS, build, lora

RECIPE = Recipe(steps=3, height=32, width=32, batch_size=8)


def decided(before: Tensor, after: Tensor) -> DistillationResult:
    pipe_free: Any = object()
    return DistillationResult(trained=pipe_free, start=object(), before=before, after=after, iterations=1)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("images", [4, 16])
def test_what_is_no_better_is_kept_no_more_often_than_its_risk(images: int) -> None:
    generator = torch.Generator().manual_seed(0)
    kept = 0
    for _ in range(150):
        before, after = torch.rand(2, images, generator=generator)  # errors of one distribution
        kept += decided(before, after).is_nearer
    assert kept / 150 < 0.1  # 5%, within three standard errors


def test_a_gain_counts_where_it_exceeds_its_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    before = 0.1 * (1 + torch.rand(16, generator=generator))
    assert decided(before, 0.8 * before).is_nearer  # paired: images differ by more than the gain
    assert not decided(before, before).is_nearer
    assert not decided(before, before * (0.99 + 0.2 * torch.randn(16, generator=generator))).is_nearer
    assert not decided(before, torch.full((16,), torch.nan)).is_nearer
    assert not decided(1e-6 * before, 0.5e-6 * before).is_nearer  # both are exact, to rounding
    assert decided(before, 0.8 * before).update is not decided(before, 1.2 * before).update


def test_what_decides_is_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor", layers=("to_q",))
    trained, decisive = [], []

    def record(teacher: Teacher, batch: Batch) -> Any:
        trained.extend(batch)
        return recorded(teacher, batch)

    def student_latents(teacher: Teacher, batch: Batch) -> Tensor:
        decisive.append(batch)
        return sampled(teacher, batch)

    recorded, sampled = Teacher.record, Teacher.student_latents
    monkeypatch.setattr(Teacher, "record", record)
    monkeypatch.setattr(Teacher, "student_latents", student_latents)
    start = bake_weights(pipe, anchor, 2.0)
    for texts in ([f"prompt {number}" for number in range(20)], PROMPTS):
        trained.clear()
        decisive.clear()
        result = distil(pipe, anchor, 2.0, start, texts, Distillation(iterations=12, rank=2), RECIPE, 1.0)
        before, after = decisive
        assert before == after  # paired: the same prompts and noise
        assert len(before) == len(result.before) == 16
        assert len(dict.fromkeys(before + trained)) == 16 + len(trained)  # no noise twice
        if len(texts) == 20:
            assert not {text for text, _ in before} & {text for text, _ in trained}


def test_a_card_and_a_page_say_what_decided(tmp_path: Path) -> None:
    pipe = build()
    anchor = lora(pipe, tmp_path / "anchor", layers=("to_q",))
    settings = Distillation(iterations=2, rank=2)
    quality = bake(
        pipe, anchor, 1.0, tmp_path / "out", PROMPTS, distillation=settings, recipe=RECIPE, guidance=1.0
    )  # exact: nothing is nearer
    assert quality.error < 1e-5
    for file in ("README.md", "bake.html"):
        text = (tmp_path / "out" / file).read_text()
        assert "2 steps of the optimizer: not shown to be nearer than the weights on 16 held-out images" in text
        assert "distillation came no nearer" in text
        assert "distillation came no nearer" in " ".join(quality.remarks)

"""Latents that are not finite are an error naming their cell; images that a safety checker blackens are not scored."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
from tests.runs.small_runs import PROMPTS, REWARD, finished, quiet, recipe_of
from tests.zoo import ZOO, anchor_of

from deradiff.errors import PartialScoresError, RealignError
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run


@pytest.mark.parametrize("policy", ["exact", "weights"])
def test_a_lam_whose_latents_are_not_finite_is_reported_and_not_journalled(
    policy: str, tmp_path: Path, models: tuple[str, str]
) -> None:
    recipe = recipe_of(models, policy=policy, batch_size=1)
    with pytest.raises(RealignError, match=r"NaN or infinite, such as at lam = 1e\+35 .*'a red circle', seed 0"):
        finished(tmp_path, recipe, prompts=PROMPTS[:1], seeds=1, lams=[0, 1e35])
    run = Run(tmp_path)
    assert [cell.lam for record in run.store.records() for cell in record.values()] == [0.0]
    assert len(list((tmp_path / "images").rglob("*.png"))) == 1


def checked_pipeline() -> Any:
    """A pipeline with a safety checker that flags the second image of a batch."""
    pipe: Any = ZOO["sd"].build()
    pipe.set_progress_bar_config(disable=True)

    def flag(image: Any, device: Any, dtype: Any) -> Any:
        flags = [row == 1 for row in range(len(image))]
        image[flags] = image.min()
        return image, flags

    pipe.run_safety_checker = flag
    return pipe


def test_what_a_safety_checker_blackens_is_counted_kept_and_never_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = checked_pipeline()
    run = Run(tmp_path / "run", recipe=Recipe(steps=2, batch_size=2), pipe=pipe, aligned=anchor_of(pipe.unet))
    run.sample(PROMPTS, seeds=1, lams=[0, 1], progress=quiet)
    assert "safety checker made 2 images black" in caplog.text
    flagged = [record.keys[index] for record in run.store.records() for index in record.blackened]
    assert len(flagged) == 2
    with pytest.raises(PartialScoresError, match=r"failed on 2 images.*safety checker made the image black"):
        run.score(REWARD, progress=quiet)
    scored = {
        key: value for record in run.store.scores() for key, value in zip(record.keys, record.scores, strict=True)
    }
    assert {key for key, value in scored.items() if value is None} == set(flagged)
    assert len(scored) == 4


def test_a_pipeline_that_steps_by_itself_is_sampled_all_the_same(tmp_path: Path) -> None:
    pipe: Any = ZOO["sd"].build()
    pipe.set_progress_bar_config(disable=True)
    original = type(pipe).__call__

    class Unstepped(type(pipe)):  # as pipelines with a scheduler of their own do
        @functools.wraps(original)
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            step, self.scheduler = self.scheduler, copy.copy(self.scheduler)
            vars(self.scheduler).pop("step", None)
            try:
                return original(self, *args, **kwargs)
            finally:
                self.scheduler = step

    pipe.__class__ = Unstepped
    recipe = Recipe(steps=2, batch_size=2, diagnostics=False)
    run = Run(tmp_path / "run", recipe=recipe, pipe=pipe, aligned=anchor_of(pipe.unet))
    run.sample(PROMPTS, seeds=1, lams=[0, 1], progress=quiet)
    assert len(list((tmp_path / "run" / "images").rglob("*.png"))) == 4

"""Pipelines that take more than prompts: an image depends on nothing that is sampled beside it."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.zoo import ZOO, anchor_of

from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

EDGES = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "sd": {"negative_prompt": "blurry"},
    "sdxl": {},
    "sd_with_style_lora": {},
    "sd_pag": {},
    "sd_controlnet": {"image": EDGES},
    "sd_img2img": {"image": EDGES, "strength": 1.0},
    "sd_inpaint": {"image": EDGES, "mask_image": Image.new("L", (64, 64), 255)},
}


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_images_are_the_same_in_any_order_and_split(tmp_path: Path, name: str) -> None:
    pipe: Any = ZOO[name].build()
    pipe.set_progress_bar_config(disable=True)
    anchor, recipe = anchor_of(pipe.unet), Recipe(steps=2, batch_size=4)

    def sample(folder: str, *requests: tuple[list[str], list[float]]) -> dict[str, bytes]:
        run = Run(tmp_path / folder, recipe, pipe=pipe, aligned=anchor, call_kwargs=ARGUMENTS[name])
        for prompts, lams in requests:
            run.sample(prompts, seeds=1, lams=lams, progress=lambda count: None)
        return images(tmp_path / folder)

    whole = sample("whole", (["one", "two", "three"], [0, 0.5]))
    assert len(whole) == 6
    assert sample("pieces", (["three"], [0.5]), (["two", "one", "three"], [0, 0.5])) == whole


def test_other_arguments_are_another_run(tmp_path: Path) -> None:
    pipe: Any = ZOO["sd_controlnet"].build()
    runs = [
        Run(tmp_path / "run", Recipe(steps=2), pipe=pipe, aligned=anchor_of(pipe.unet), call_kwargs={"image": image})
        for image in (EDGES, EDGES.rotate(90))
    ]
    assert runs[0].recipe.identity != runs[1].recipe.identity

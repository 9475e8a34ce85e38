"""One lam per prompt or per image, however the pipeline is told how many there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import deradiff
from deradiff.realignment.batch import PipelineCall, infer_batch

from .pipelines import known, near

LAMS = [0.0, 1.0, 0.5, 2.0]


def latents(images: int) -> torch.Tensor:
    return torch.randn(images, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def run(prompt: Any, images: int, **changes: Any) -> torch.Tensor:
    return known("sd").run(1, prompt=prompt, latents=latents(images), generator=None, **changes)


def scalars(prompt: Any, images: int, handle: Any, **changes: Any) -> dict[float, torch.Tensor]:
    found = {}
    for lam in LAMS:
        handle.lam = lam
        found[lam] = run(prompt, images, **changes)
    return found


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("as_embeds", [False, True])
def test_per_prompt_and_per_image(guidance: float, as_embeds: bool) -> None:
    pipe, changes = known("sd").pipe, {"num_images_per_prompt": 2, "guidance_scale": guidance}
    prompt: Any = ["a red square", "a blue square"]
    if as_embeds:
        embeds, negative = pipe.encode_prompt(prompt, "cpu", 1, True)
        changes |= {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
        prompt = None
    with deradiff.realign(pipe, known("sd").anchors) as handle:
        alone = scalars(prompt, 4, handle, **changes)
        for lams, per_image in (([0.5, 2.0], [0.5, 0.5, 2.0, 2.0]), (LAMS, LAMS)):
            handle.lam = lams
            mixed = run(prompt, 4, **changes)
            assert all(near(mixed[row], alone[lam][row]) for row, lam in enumerate(per_image))
    assert not near(alone[0.5][0], alone[2.0][0])


def test_one_prompt_as_a_string_and_positional() -> None:
    it = known("sd")
    with deradiff.realign(it.pipe, it.anchors) as handle:
        alone = scalars("a red square", 4, handle, num_images_per_prompt=4)
        given: Any
        for given in (LAMS, tuple(LAMS), torch.tensor(LAMS), torch.tensor(LAMS).numpy()):
            handle.lam = given
            assert handle.lam == LAMS
            arguments = {"latents": latents(4), "num_images_per_prompt": 4, "output_type": "latent"}
            mixed = it.pipe("a red square", 32, 32, 2, guidance_scale=3.0, **arguments)[0]
            assert all(near(mixed[row], alone[lam][row]) for row, lam in enumerate(LAMS))


def test_the_pipelines_own_errors_come_through() -> None:
    it = known("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=[0.0, 1.0]):
        with pytest.raises(TypeError, match="positional"):
            it.pipe(*range(99))
        with pytest.raises(ValueError, match="height"):
            it.run(height=33)
    assert torch.equal(it.run(), it.plain)


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ({"prompt": "one"}, 1),
        ({"prompt": ["one", "two"]}, 2),
        ({"prompt": None, "prompt_embeds": torch.zeros(3, 7, 8)}, 3),
        ({"image": torch.zeros(3, 8, 8)}, 1),
        ({"image": torch.zeros(2, 3, 8, 8)}, 2),
        ({"batch_size": 4}, 4),
        ({}, None),
    ],
)
def test_prompts_are_counted_as_the_pipeline_counts_them(given: dict[str, Any], prompts: int | None) -> None:
    def call(**kwargs: Any) -> None: ...

    assert infer_batch(PipelineCall(call, (), given)).prompts == prompts

"""What is shipped: a pipeline that draws what it is told, small files, and anchors that plain diffusers loads."""

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from deradiff import testbed
from deradiff.anchor.source import card_of
from deradiff.errors import AnchorError
from deradiff.testbed.captions import parse


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    return testbed.load_pipeline()


def _generate(pipe: StableDiffusionPipeline, prompts: list[str], guidance: float = 1.0, steps: int = 20) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    settings = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt", "return_dict": False}
    return pipe(prompts, generator=generators, **settings)[0]


def test_the_pipeline_draws_what_its_prompt_says(pipe: StableDiffusionPipeline) -> None:
    prompts = testbed.prompts(32, seed=123)
    assert testbed.faithfulness(_generate(pipe, prompts), prompts).mean() >= 0.85


def test_schedulers_made_from_its_own_draw_as_well() -> None:
    pipe, prompts = testbed.load_pipeline(), testbed.prompts(16, seed=124)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)  # pyright: ignore[reportAttributeAccessIssue]
    assert testbed.faithfulness(_generate(pipe, prompts, guidance=1.5), prompts).mean() >= 0.85


def test_everything_fits_in_12_megabytes() -> None:
    data = Path(testbed.__file__).parent / "data"
    assert sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) <= 12e6


@pytest.mark.parametrize("name", testbed.anchor_names())
def test_anchors_load_and_say_what_their_beta_means(pipe: StableDiffusionPipeline, name: str) -> None:
    pipe.load_lora_weights(str(testbed.anchor_path(name)))
    assert any("lora_B" in key for key in pipe.unet.state_dict())
    pipe.unload_lora_weights()
    card = card_of(testbed.anchor_path(name))
    assert name == f"warmth-beta{card['beta']:g}-seed{card['seed']}"
    assert {"reduction", "factor", "timestep_weight"} <= set(card["beta_convention"])


def test_the_default_anchor_is_warmer_than_the_reference_on_the_same_seeds() -> None:
    pipe = testbed.load_pipeline()
    prompts = [prompt.split(" on ")[0] for prompt in testbed.prompts(32, seed=5)]  # the background is left free
    before = testbed.warmth(_generate(pipe, prompts, steps=8), prompts)
    pipe.load_lora_weights(str(testbed.anchor_path()))
    gain = testbed.warmth(_generate(pipe, prompts, steps=8), prompts) - before
    assert gain.mean() > 2 * gain.std() / len(prompts) ** 0.5 > 0


def test_demo_prompts_are_captions() -> None:
    for prompt in testbed.DEMO_PROMPTS:
        parse(prompt)


def test_fresh_prompts_are_full_captions() -> None:
    for prompt in testbed.prompts(50, seed=1):
        claim = parse(prompt)
        assert claim.background is not None
        assert claim.size is not None or claim.pair is not None
    assert testbed.prompts(20, seed=3) == testbed.prompts(20, seed=3) != testbed.prompts(20, seed=4)
    assert len(set(testbed.prompts(200))) == 200


def test_an_unknown_anchor_is_named_with_those_there_are() -> None:
    with pytest.raises(AnchorError, match=testbed.anchor_names()[0]):
        testbed.anchor_path("nonesuch")

"""Loading and calling pipelines of real classes; latents decoded one by one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runs.drawing import PROMPTS, RECIPE, counting, drawn, generators
from tests.zoo import ZOO

from deradiff.errors import ConfigError
from deradiff.runs.models import call, decoding_one_by_one, load_pipeline, set_scheduler
from deradiff.sampling import noise_seed


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_loaded_as_asked(tmp_path: Path, dtype: str) -> None:
    ZOO["sd"].build().save_pretrained(tmp_path)
    pipe = load_pipeline(str(tmp_path), dtype=dtype)
    assert {p.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()} == {
        getattr(torch, dtype)
    }


def test_what_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be loaded"):
        load_pipeline("no/such-model")
    with pytest.raises(ConfigError, match="give --device"):
        load_pipeline(str(tmp_path), offload=True)
    ZOO["sd"].build().save_pretrained(tmp_path)
    for offload in (False, True):
        with pytest.raises(ConfigError, match="'nonsense' can't be used"):
            load_pipeline(str(tmp_path), device="nonsense", offload=offload)


def test_any_scheduler_that_suits_can_be_had_and_others_are_reported() -> None:
    pipe: Any = ZOO["sd"].build()
    for name in ("LCMScheduler", "UniPCMultistepScheduler", "DDIMScheduler"):
        set_scheduler(pipe, name)
        assert type(pipe.scheduler).__name__ == name
        assert drawn(pipe, PROMPTS, 1.0).isfinite().all()
    with pytest.raises(ConfigError, match="'FlowMatchEulerDiscreteScheduler' is no scheduler for StableDiffusion"):
        set_scheduler(pipe, "FlowMatchEulerDiscreteScheduler")
    with pytest.raises(ConfigError, match=r"choose from .*LCMScheduler"):
        set_scheduler(pipe, "Nonsense")


def test_a_call_gives_each_prompt_its_row_and_its_generator() -> None:
    pipe: Any = ZOO["sd"].build()
    together = drawn(pipe, [*PROMPTS, *PROMPTS], 3.0)
    assert len(together) == 4
    for row, generator in enumerate(generators(4)):
        alone = call(pipe, RECIPE, [PROMPTS[row % 2]], [generator], 3.0, output_type="latent")
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-4)


def test_a_call_keeps_the_pipelines_own_guidance_where_none_is_given() -> None:
    pipe: Any = ZOO["sd"].build()
    assert torch.equal(drawn(pipe, PROMPTS, None), drawn(pipe, PROMPTS, 7.5))
    assert not torch.equal(drawn(pipe, PROMPTS, None), drawn(pipe, PROMPTS, 3.0))


def test_a_negative_prompt_holds_for_every_row() -> None:
    pipe: Any = ZOO["sd"].build()

    def latents(prompts: list[str], start: int, negative: Any) -> torch.Tensor:
        own = generators(2)[start : start + len(prompts)]
        given = {"output_type": "latent", "negative_prompt": negative}
        return torch.stack(call(pipe, RECIPE, prompts, own, 3.0, **given))

    together = latents(PROMPTS, 0, "grey")
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(latents([prompt], row, ["grey"]), together[row : row + 1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together, latents(PROMPTS, 0, ""), rtol=1e-2)


@pytest.mark.parametrize("name", ["wan", "dit"])
def test_pipelines_that_draw_no_images_from_prompts_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"Pipeline can't be swept.*num_images_per_prompt"):
        call(ZOO[name].build(), RECIPE, PROMPTS, generators(2), None)


def test_a_setting_the_pipeline_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="StableDiffusionPipeline takes no softness"):
        call(ZOO["sd"].build(), RECIPE, PROMPTS, generators(2), None, softness=1)


def test_one_seed_is_other_noise_for_another_prompt() -> None:
    assert len({noise_seed(prompt, seed) for prompt in PROMPTS for seed in (0, 1)}) == 4
    assert noise_seed("a red circle", 0) == noise_seed("a red circle", 0) < 2**63


def test_latents_are_decoded_one_by_one_and_the_vae_is_left_as_it_was() -> None:
    pipe: Any = ZOO["sd"].build()
    prompts = [*PROMPTS, *PROMPTS]
    plain = call(pipe, RECIPE, prompts, generators(4), 3.0)
    for before in (False, True):
        pipe.vae.use_slicing = before
        with counting(pipe.vae.decoder) as sizes, decoding_one_by_one(pipe):
            images = call(pipe, RECIPE, prompts, generators(4), 3.0)
        assert sizes == [1] * 4
        with pytest.raises(ConfigError), decoding_one_by_one(pipe):
            call(pipe, RECIPE, prompts, generators(4), 3.0, softness=1)
        assert pipe.vae.use_slicing is before
        assert all(isinstance(image, Image.Image) for image in images)
        for own, other in zip(images, plain, strict=True):
            assert np.abs(np.asarray(own, dtype=int) - np.asarray(other)).max() <= 1


def test_a_vae_that_cannot_slice_is_left_alone() -> None:
    for vae in (None, torch.nn.Linear(1, 1)):
        with decoding_one_by_one(SimpleNamespace(vae=vae)):
            pass


def test_a_scheduler_that_seeds_itself_is_refused_by_name() -> None:
    pipe: Any = ZOO["sd"].build()
    own: Any = type("DPMSolverSDEScheduler", (type(pipe.scheduler),), {})
    with pytest.raises(ConfigError, match=r"DPMSolverSDEScheduler draws its noise from a source of its own"):
        set_scheduler(pipe, "DPMSolverSDEScheduler")
    pipe.scheduler = own.from_config(pipe.scheduler.config)
    with pytest.raises(ConfigError, match="would not be that of its seed"):
        set_scheduler(pipe, None)


def test_a_folder_of_the_fp16_variant_alone_is_read(tmp_path: Path) -> None:
    pipe: Any = ZOO["sd"].build()
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(tmp_path, variant="fp16")
    loaded = load_pipeline(str(tmp_path))
    weights = loaded.unet.state_dict()
    assert all(torch.equal(weights[name], value.float()) for name, value in pipe.unet.state_dict().items())
    (next((tmp_path / "unet").glob("*.safetensors"))).unlink()
    with pytest.raises(ConfigError, match="can't be loaded") as caught:
        load_pipeline(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_that_is_a_file_is_an_error_of_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0")
    with pytest.raises(ConfigError, match=r"is a file; give a pipeline folder"):
        load_pipeline(str(tmp_path / "model.safetensors"))

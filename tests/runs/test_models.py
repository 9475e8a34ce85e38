"""Loading and calling pipelines of real classes; latents decoded one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.realignment.original_names import original_pipeline
from tests.runs.drawing import PROMPTS, RECIPE, counting, drawn, generators
from tests.zoo import ZOO

from deradiff import realign, testbed
from deradiff.anchor.location import Location
from deradiff.devices import pick_device
from deradiff.errors import AnchorError, ConfigError
from deradiff.runs.model_files import read_dtype
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
    with pytest.raises(ConfigError, match="neither on this machine nor can it be fetched"):
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


def _without(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(weights.items())[1:])


def _renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"another.{name}": weight for name, weight in weights.items()}


@pytest.mark.parametrize("change", [_without, _renamed])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_network_that_lacks_weights_is_refused_and_not_drawn_with_random_ones(
    part: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    pipe: Any = ZOO["sd"].build()
    pipe.save_pretrained(tmp_path)
    (file,) = (tmp_path / part).glob("*.safetensors")
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=rf"{part} lacks \d+ weights of a \w+ \(\w") as caught:
        load_pipeline(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
    if part == "vae":  # which isn't taken of an anchor
        return
    with pytest.raises(AnchorError, match="lacks"), realign(pipe, str(tmp_path), 0.5, text_encoder="anchor"):
        pytest.fail("a full anchor that lacks weights was taken")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": None}, "names the class None, which is no pipeline of diffusers"),
        ({"_class_name": 3}, "names the class 3, which is no pipeline"),
        ({"_class_name": "UNet2DConditionModel"}, "is no pipeline of diffusers"),
        ({"unet": "x"}, r"unet: x; expected \[library, class\]"),
        ({"unet": ["diffusers"]}, r"expected \[library, class\]"),
        ({"unet": [None, None]}, "names no unet, which a StableDiffusionPipeline needs"),
        ({"text_encoder": [None, None]}, "names no text_encoder"),
        ({"unet": ["diffusers", "Nope"]}, "can't be loaded: .*: fetch it again"),
    ],
)
def test_an_index_that_names_no_whole_pipeline_is_a_sentence(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    ZOO["sd"].build().save_pretrained(tmp_path)
    file = tmp_path / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=words) as caught:
        load_pipeline(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("part", ["vae", "tokenizer", "scheduler", "unet", "safety_checker"])
def test_a_part_that_is_not_there_is_named(part: str, tmp_path: Path) -> None:
    ZOO["sd"].build().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | (checker if part in checker else {})))
    for file in (tmp_path / part).glob("*"):
        file.unlink()
    with pytest.raises(ConfigError, match=f"has nothing in {part}, which its model_index.json names: fetch it again"):
        load_pipeline(str(tmp_path))


@pytest.mark.parametrize("name", ["sd_multicontrolnet"])
def test_what_diffusers_loads_is_loaded_alike(name: str, tmp_path: Path) -> None:
    ZOO[name].build().save_pretrained(tmp_path)
    loaded, plain = load_pipeline(str(tmp_path)), DiffusionPipeline.from_pretrained(str(tmp_path))
    assert loaded.components.keys() == plain.components.keys()
    for part, network in plain.components.items():
        if isinstance(network, torch.nn.Module):
            weights = loaded.components[part].state_dict()
            assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items())


def test_an_encoder_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    ZOO["sdxl"].build().save_pretrained(tmp_path)
    file = tmp_path / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer": [None, None]}))
    with pytest.raises(ConfigError, match="names no tokenizer, which"):
        load_pipeline(str(tmp_path))


def test_pickles_alone_are_not_read(tmp_path: Path) -> None:
    ZOO["sd"].build().save_pretrained(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ConfigError, match=r"pickles alone \(diffusion_pytorch_model.bin\).*convert them"):
        load_pipeline(str(tmp_path))


def test_one_of_several_text_encoders_may_have_been_left_out(tmp_path: Path) -> None:
    """As Stable Diffusion 3 without its T5, which diffusers refuses unless it is told so."""
    pipe, other = ZOO["sd3"].build(), ZOO["sdxl"].build()
    encoder = {"text_encoder": other.text_encoder_2, "tokenizer": other.tokenizer_2}
    pipe.register_modules(**encoder, **{f"{name}_2": part for name, part in encoder.items()})
    pipe.save_pretrained(tmp_path)
    loaded = load_pipeline(str(tmp_path))
    assert loaded.text_encoder_3 is None
    assert loaded.tokenizer_3 is None
    assert loaded.text_encoder_2 is not None


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A pipeline in one file in the original layout, with the configs beside it."""
    pipe: Any = ZOO["sd"].build()
    file = tmp_path / "tuned.safetensors"
    save_file(original_pipeline(pipe), file)
    pipe.save_pretrained(file.with_suffix(""))
    for weights in file.with_suffix("").rglob("*.safetensors"):
        weights.unlink()
    return file


def test_a_single_file_checkpoint_is_the_pipeline_that_it_was_made_of(checkpoint: Path) -> None:
    expected = drawn(ZOO["sd"].build(), PROMPTS, 3.0)
    assert torch.equal(drawn(load_pipeline(str(checkpoint)), PROMPTS, 3.0), expected)
    inside = checkpoint.with_suffix("") / "other.safetensors"
    checkpoint.rename(inside)  # as repositories of the hub have them
    assert torch.equal(drawn(load_pipeline(str(inside), dtype="auto"), PROMPTS, 3.0), expected)


@pytest.mark.parametrize("part", ["model.diffusion_model", "first_stage_model", "cond_stage_model"])
def test_a_single_file_that_lacks_weights_is_refused(part: str, checkpoint: Path) -> None:
    weights = load_file(checkpoint)
    del weights[max(name for name in weights if name.startswith(part) and name.endswith(".weight"))]
    save_file(weights, checkpoint)
    with pytest.raises(ConfigError, match=r"lacks weights of a StableDiffusionPipeline"):
        load_pipeline(str(checkpoint))


def test_a_single_file_that_cannot_be_used_is_a_sentence(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, content, words in (
        ("pickle.ckpt", b"0", "is no .safetensors file"),
        ("torn.safetensors", b"0", "can't be read as safetensors"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            load_pipeline(str(tmp_path / name))
    lora = testbed.anchor_path() / "pytorch_lora_weights.safetensors"
    with pytest.raises(ConfigError, match="is a LoRA; give it as --anchor"):
        load_pipeline(str(lora))
    weights = load_file(checkpoint)
    save_file({name: value for name, value in weights.items() if "cond_stage" not in name}, checkpoint)
    with pytest.raises(ConfigError, match="can't be read as a StableDiffusionPipeline by the configs in") as caught:
        load_pipeline(str(checkpoint))
    assert len(str(caught.value).splitlines()) == 1
    checkpoint.with_suffix("").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"neither beside it nor on the hub .*put .*model_index.json.*/tuned/$"):
        load_pipeline(str(checkpoint))


def test_the_dtype_may_be_that_of_the_files(checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(checkpoint)
    for dtype in (torch.float16, torch.bfloat16):
        halves = {name: value.to(dtype) if "logit" not in name else value for name, value in weights.items()}
        save_file({**halves, "position_ids": torch.arange(10**5)}, checkpoint)
        assert read_dtype(checkpoint) == str(dtype).removeprefix("torch.")
    pipe: Any = ZOO["sd"].build()
    pipe.save_pretrained(tmp_path / "both")
    pipe.to(dtype=torch.float16).save_pretrained(tmp_path / "both", variant="fp16")
    assert read_dtype(tmp_path / "both") == "float32"
    assert read_dtype(tmp_path / "both", "fp16") == "float16"
    location = Location(variant="fp16")
    assert load_pipeline(str(tmp_path / "both"), location=location, dtype="auto").unet.dtype == torch.float16
    save_file({"a": torch.zeros(2, dtype=torch.float64)}, checkpoint)
    (tmp_path / "empty").mkdir()
    for path, words in ((checkpoint, "F64, which no network runs in"), (tmp_path / "empty", "holds no weights")):
        with pytest.raises(ConfigError, match=words):
            read_dtype(path)


def test_a_model_lies_where_its_location_says(tmp_path: Path) -> None:
    ZOO["sd"].build().save_pretrained(tmp_path / "runs" / "last")
    load_pipeline(str(tmp_path), location=Location(subfolder="runs/last"))
    for given, words in (
        (Location(subfolder="runs/first"), "has no subfolder 'runs/first'"),
        (Location(), "is no pipeline: it has no model_index.json"),
        (Location(subfolder="runs/last", variant="bf16"), "no weights of the variant 'bf16'.*the plain one"),
        (Location(revision="v2"), "is on this machine and has no revision 'v2'"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_pipeline(str(tmp_path), location=given)
    (tmp_path / "file.safetensors").touch()
    with pytest.raises(ConfigError, match="is a file, in which there is no subfolder unet"):
        load_pipeline(str(tmp_path / "file.safetensors"), location=Location(subfolder="unet"))


@pytest.mark.parametrize(("cuda", "mps", "device"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_best_device_is_taken(cuda: bool, mps: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device() == device
    assert pick_device("cuda:1") == "cuda:1"

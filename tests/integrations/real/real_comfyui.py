"""The nodes in a real ComfyUI, over its HTTP API: `make test-comfyui COMFYUI_DIR=...`.

Latents are compared as they are saved. A prompt of another shape in between empties ComfyUI's cache of outputs, so that
a repeated prompt is sampled again.
"""

import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.integrations.real.conftest import Checkout
from tests.integrations.real.server import ComfyUI
from tests.integrations.real.workflow import Prompt, load_example, only
from torch import Tensor

HERE = Path(__file__).parent
PACK = HERE.parents[2] / "integrations" / "comfyui"


@pytest.fixture(scope="session")
def comfyui(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    folder = tmp_path_factory.mktemp("comfyui")
    for name in ("custom_nodes", "input", "output"):
        (folder / name).mkdir()
    shutil.copytree(PACK, folder / "custom_nodes" / "deradiff", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "tiny_text_encode.py", folder / "custom_nodes")
    command = [checkout.python, HERE / "tiny_models.py", folder / "models"]
    subprocess.run(command, cwd=checkout.folder, check=True)
    with ComfyUI(checkout.folder, checkout.python, folder) as server:
        yield server


def latent_of(comfyui: ComfyUI, prompt: Prompt, source: str | None = None) -> Tensor:
    """The latent that a node (the only KSampler, unless another is named) puts out."""
    prompt = deepcopy(prompt)
    for name in [name for name, node in prompt.items() if node["class_type"] in ("SaveImage", "VAEDecode")]:
        del prompt[name]
    for name in [name for name, node in prompt.items() if node["class_type"] == "DeradiffLamGridImage"]:
        del prompt[name]
    samples = [source or only(prompt, "KSampler"), 0]
    prompt["save"] = {"class_type": "SaveLatent", "inputs": {"samples": samples, "filename_prefix": "test"}}
    (path,) = comfyui.run(prompt)["save"]
    return load_file(path)["latent_tensor"]


def with_model(prompt: Prompt, model: list[Any], **nodes: dict[str, Any]) -> Prompt:
    """The same sampling of another model."""
    prompt = deepcopy(prompt) | nodes
    prompt[only(prompt, "KSampler")]["inputs"]["model"] = model
    return prompt


def plain(prompt: Prompt) -> Prompt:
    """The reference alone: what the realigning node gets."""
    (node,) = (node for node in prompt.values() if node["class_type"] in ("DeradiffRealignLora", "DeradiffRealign"))
    return with_model(prompt, node["inputs"].get("model") or node["inputs"]["reference"])


def aligned(prompt: Prompt) -> Prompt:
    """The aligned model alone: ComfyUI's own loading of the LoRA, or the second checkpoint."""
    (node,) = (node for node in prompt.values() if node["class_type"] in ("DeradiffRealignLora", "DeradiffRealign"))
    if "aligned" in node["inputs"]:
        return with_model(prompt, node["inputs"]["aligned"])
    return with_model(prompt, ["loader", 0], loader=load_lora_node(node["inputs"]["model"], "alignment.safetensors"))


def load_lora_node(model: list[Any], name: str, strength: float = 1.0) -> dict[str, Any]:
    inputs = {"model": model, "lora_name": name, "strength_model": strength}
    return {"class_type": "LoraLoaderModelOnly", "inputs": inputs}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


KINDS = pytest.mark.parametrize("name", ["realign_lora", "realign_two_models"])


@KINDS
def test_lam_0_is_the_reference_and_leaves_it_alone(comfyui: ComfyUI, name: str) -> None:
    prompt = load_example(name)
    before = latent_of(comfyui, plain(prompt))
    at_0 = latent_of(comfyui, load_example(name, lam="0"))
    at_half = latent_of(comfyui, prompt)
    after = latent_of(comfyui, plain(prompt))
    assert torch.equal(at_0, before)
    assert torch.equal(after, before)
    assert relative_error(at_half, before) > 0.05


@KINDS
def test_lam_1_is_the_aligned_model(comfyui: ComfyUI, name: str) -> None:
    error = relative_error(
        latent_of(comfyui, load_example(name, lam="1")), latent_of(comfyui, aligned(load_example(name)))
    )
    print(f"{name}: lam 1 differs from the aligned model by {error:.1e}")
    assert error <= (0 if name == "realign_two_models" else 1e-4)


@KINDS
def test_one_half_is_the_mixture_that_is_blended_by_hand_at_each_step(comfyui: ComfyUI, name: str) -> None:
    steps = 4
    prompt = load_example(name, steps=steps, sampler_name="euler", scheduler="simple")
    by_hand, previous = deepcopy(prompt), None
    for model, single in (("reference", plain(prompt)), ("aligned", aligned(prompt))):
        sampler = single[only(single, "KSampler")]["inputs"]
        by_hand |= {key: node for key, node in single.items() if key not in by_hand}
        previous = sampler["latent_image"]
        for step in range(steps):
            key = f"blend {step - 1}" if step else None
            by_hand[f"{model} {step}"] = one_step(sampler, step, steps, [key, 0] if key else previous)
    for step in range(steps):
        inputs = {"samples1": [f"reference {step}", 0], "samples2": [f"aligned {step}", 0], "blend_factor": 0.5}
        by_hand[f"blend {step}"] = {"class_type": "LatentBlend", "inputs": inputs}
    del by_hand[only(by_hand, "KSampler")]
    error = relative_error(latent_of(comfyui, prompt), latent_of(comfyui, by_hand, f"blend {steps - 1}"))
    print(f"{name}: lam 1/2 differs from the mix by hand by {error:.1e}")
    assert error < 1e-5


def one_step(sampler: dict[str, Any], step: int, steps: int, latent: list[Any]) -> dict[str, Any]:
    """One of a sampler's steps."""
    copied = {name: sampler[name] for name in ("model", "positive", "negative", "cfg", "sampler_name", "scheduler")}
    inputs = copied | {"latent_image": latent, "noise_seed": sampler["seed"], "steps": steps}
    inputs |= {"start_at_step": step, "end_at_step": step + 1}
    inputs |= {"add_noise": "disable" if step else "enable", "return_with_leftover_noise": "enable"}
    return {"class_type": "KSamplerAdvanced", "inputs": inputs}


@KINDS
def test_the_percent_range_is_that_of_the_steps(comfyui: ComfyUI, name: str) -> None:
    settings: dict[str, Any] = {"steps": 4, "sampler_name": "euler", "scheduler": "simple"}
    prompt = load_example(name, **settings)
    switched, samplers = deepcopy(prompt), []
    for single in (plain(prompt), aligned(prompt)):
        switched |= {key: node for key, node in single.items() if key not in switched}
        samplers.append(single[only(single, "KSampler")]["inputs"])
    switched["first"] = one_step(samplers[0], 0, 4, samplers[0]["latent_image"])
    switched["first"]["inputs"]["end_at_step"] = 2
    switched["last"] = one_step(samplers[1], 2, 4, ["first", 0])
    switched["last"]["inputs"]["end_at_step"] = 4
    del switched[only(switched, "KSampler")]
    late = latent_of(comfyui, load_example(name, lam="1", start_percent=0.5, **settings))
    assert relative_error(late, latent_of(comfyui, switched, "last")) < 1e-4
    assert relative_error(late, latent_of(comfyui, load_example(name, lam="1", end_percent=0.5, **settings))) > 0.01


@KINDS
def test_each_image_of_a_batch_has_its_lam(comfyui: ComfyUI, name: str) -> None:
    lams = ["0", "0.5", "1"]
    together = latent_of(comfyui, load_example(name, lam=", ".join(lams), batch_size=3))
    for index, lam in enumerate(lams):
        alone = latent_of(comfyui, load_example(name, lam=lam, batch_size=3))
        assert torch.equal(together[index], alone[index])


def test_a_grid_in_one_batch_shares_its_noise_and_is_labelled(comfyui: ComfyUI) -> None:
    prompt = load_example("lam_grid", lams="0, 0.5, 1", sampler_name="euler")
    rows = latent_of(comfyui, prompt)
    for row, lam in zip(rows, ["0", "0.5", "1"], strict=True):
        alone = latent_of(comfyui, load_example("realign_lora", lam=lam, sampler_name="euler", scheduler="karras"))
        assert relative_error(row, alone[0]) < 1e-4
    (picture,) = comfyui.run(prompt)[only(prompt, "SaveImage")]
    width, height = Image.open(picture).size
    assert width == 3 * 64 + 4 * 8
    assert height > 64 + 20


def test_a_grid_one_after_the_other_is_exact_with_any_sampler(comfyui: ComfyUI) -> None:
    settings: dict[str, Any] = {"sampler_name": "euler_ancestral", "scheduler": "normal"}
    prompt = load_example("lam_grid_any_sampler", lams="0, 0.5, 1")
    images = [only(prompt, "VAEDecode"), 0]
    prompt["each"] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "each"}}
    files = comfyui.run(prompt)["each"]
    for path, lam in zip(files, ["0", "0.5", "1"], strict=True):
        single = load_example("realign_lora", lam=lam, **settings)
        (alone,) = comfyui.run(single)[only(single, "SaveImage")]
        assert Image.open(path).tobytes() == Image.open(alone).tobytes()


def test_a_lora_under_peft_names_with_its_alpha_in_the_metadata_is_the_same_lora(comfyui: ComfyUI) -> None:
    kohya = latent_of(comfyui, load_example("realign_lora"))
    assert torch.equal(latent_of(comfyui, load_example("realign_lora", lora_name="alignment_peft.safetensors")), kohya)


@pytest.mark.parametrize("lora", ["alignment", "alignment_peft"])
def test_a_baked_lora_is_the_lora_at_that_strength(comfyui: ComfyUI, lora: str) -> None:
    comfyui.run(load_example("bake_lora", lora_name=f"{lora}.safetensors", filename_prefix=f"loras/{lora}"))
    prompt = load_example("realign_lora")
    model = prompt[only(prompt, "DeradiffRealignLora")]["inputs"]["model"]
    strengths = ((f"{lora}_lam0.5_00001_.safetensors", 1.0), ("alignment.safetensors", 0.5))
    baked, scaled = (
        latent_of(comfyui, with_model(prompt, ["loader", 0], loader=load_lora_node(model, *strength)))
        for strength in strengths
    )
    assert relative_error(baked, scaled) < 1e-4
    assert relative_error(baked, latent_of(comfyui, plain(prompt))) > 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": "0, half"}, '"half" in "0, half" is not a number'),
        ({"lam": "0, 1"}, "2 numbers and the batch 1 images"),
        ({"start_percent": 0.5, "end_percent": 0.25}, "start that is smaller than the end"),
    ],
)
def test_wrong_input_is_an_error_on_a_node(comfyui: ComfyUI, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        latent_of(comfyui, load_example("realign_lora", **settings))
    prompt = load_example("realign_lora")
    assert torch.isfinite(latent_of(comfyui, prompt)).all()


def test_a_reference_and_itself_with_a_lora_are_not_two_models(comfyui: ComfyUI) -> None:
    prompt = load_example("realign_two_models")
    node = prompt[only(prompt, "DeradiffRealign")]["inputs"]
    prompt["loader"] = load_lora_node(node["reference"], "alignment.safetensors")
    node["aligned"] = ["loader", 0]
    with pytest.raises(RuntimeError, match="use Realign LoRA"):
        latent_of(comfyui, prompt)

"""LoRA anchors: every way of holding them gives one prediction, and none leaves a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import save_file
from tests.zoo import ZOO

import deradiff
from deradiff.errors import RealignError

from . import loras
from .pipelines import known, near, subject, way_of
from .trace import difference, snapshot

FAMILIES = {"sd": "unet", "sdxl": "unet", "flux": "transformer", "sd3": "transformer"}
families = pytest.mark.parametrize("name", list(FAMILIES))
# Caches belong to one model; tokens of several rows are laid end to end, or gathered by experts; text is repeated
# for the frames before the denoiser sees it.
CACHED = {"flux2_klein_kv", "qwen_image_21", "glm_image", "anyflow_far"}
NOT_IN_A_BATCH = CACHED | {"z_image", "hidream", "animatediff"}


@pytest.mark.parametrize("name", list(ZOO))
def test_switch_batch_and_networks_agree_on_every_layer(name: str) -> None:
    it = subject(name)
    part = it.specimen.components[0]
    denoiser = it.denoisers[part]
    if not isinstance(denoiser, PeftAdapterMixin) or name == "sd_with_style_lora":
        pytest.skip("takes no LoRA, or has one already")
    # motion modules hand their layers keywords, which PEFT can't take
    loras.add(denoiser, "aligned", loras.ATTENTION if name == "animatediff" else loras.linear_layers(denoiser))
    full = it.run()
    denoiser.disable_adapters()
    off = it.run()
    denoiser.enable_adapters()
    before = snapshot(it.pipe)
    with deradiff.realign(it.pipe, "aligned", component=part, ensemble="toggle") as handle:
        results = {}
        for lam in (0.0, 0.5, 1.0):
            handle.lam = lam
            results[lam] = it.run()
    assert torch.equal(results[0.0], off)
    assert near(off, it.plain)
    assert torch.equal(results[1.0], full)
    assert not near(results[0.5], full)
    with deradiff.realign(it.pipe, "aligned", component=part, ensemble="separate"):
        assert near(it.run(), results[0.5])
    with deradiff.realign(it.pipe, "aligned", component=part, ensemble="batched") as handle:
        if name in NOT_IN_A_BATCH:
            with pytest.raises(RuntimeError):
                it.run()
        else:
            handle.lam = [1.0, 0.5]
            together = it.run()
            assert near(together[0], full[0])
            assert near(together[1], results[0.5][1])
    assert difference(before, snapshot(it.pipe)) == []


@families
def test_a_saved_lora_is_found_in_its_folder_and_file_and_taken_off_again(name: str, tmp_path: Path) -> None:
    it, part = known(name), FAMILIES[name]
    loras.save(it.pipe, part, tmp_path)
    other = subject(name)
    other.pipe.load_lora_weights(tmp_path, adapter_name="own")
    other.denoisers[part].requires_grad_(True)  # PEFT froze it, upon which torch takes other kernels
    full = other.run()
    assert not torch.equal(full, it.plain)
    before = snapshot(it.pipe)
    for given in (tmp_path, str(tmp_path / "pytorch_lora_weights.safetensors")):
        for way in ("auto", "toggle", "batched", "separate", "weights"):
            with deradiff.realign(it.pipe, given, lam=1.0, **way_of(way)) as handle:
                assert near(it.run(), full) if way == "separate" else torch.equal(it.run(), full)
                handle.lam = 0.0
                assert torch.equal(it.run(), it.plain)
            assert difference(before, snapshot(it.pipe)) == []
    other.pipe.set_adapters("own", 0.5)
    with deradiff.realign(it.pipe, tmp_path, lam=0.5, policy=deradiff.Weights()):
        assert near(it.run(), other.run(), 1e-6)


@families
def test_a_folder_in_pefts_own_format(name: str, tmp_path: Path) -> None:
    it, denoiser = known(name), known(name).denoisers[FAMILIES[name]]
    names = {f"base_model.model.{key}": value for key, value in loras.weights(denoiser).items()}
    save_file(names, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": list(loras.ATTENTION)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    other = subject(name)
    loras.add(other.denoisers[FAMILIES[name]], "own")
    with deradiff.realign(it.pipe, tmp_path, lam=1.0):
        assert near(it.run(), other.run())


@pytest.mark.parametrize("targets", [loras.ATTENTION, ["to_k", "to_out.0"]])
@pytest.mark.parametrize("active", [True, False])
def test_a_lora_beside_a_style_lora_that_stays_as_it_is(active: bool, targets: list[str], tmp_path: Path) -> None:
    it = subject("sd_with_style_lora")
    loras.save(known("sd").pipe, "unet", tmp_path, targets)
    it.pipe.set_adapters(["style"], [0.6])
    if not active:
        it.pipe.disable_lora()
    plain, before = it.run(), snapshot(it.pipe)
    other = subject("sd_with_style_lora")
    other.pipe.load_lora_weights(tmp_path, adapter_name="own")
    other.pipe.set_adapters(["style", "own"] if active else ["own"], [0.6, 1.0] if active else [1.0])
    full, results = other.run(), []
    for way in ("toggle", "separate", "weights"):
        with deradiff.realign(it.pipe, tmp_path, lam=1.0, **way_of(way)) as handle:
            assert near(it.run(), full)
            handle.lam = 0.0
            assert torch.equal(it.run(), plain)
            handle.lam = 0.5
            results.append(it.run())
        assert difference(before, snapshot(it.pipe)) == []
    assert near(results[0], results[1])


def test_a_mixed_batch_refuses_a_style_lora_that_becomes_active(tmp_path: Path) -> None:
    it = subject("sd_with_style_lora")
    loras.save(known("sd").pipe, "unet", tmp_path)
    it.pipe.disable_lora()
    with deradiff.realign(it.pipe, tmp_path, ensemble="batched"):
        it.run()
        it.pipe.enable_lora()
        it.pipe.set_adapters(["style"])
        with pytest.raises(RealignError, match="style"):
            it.run()


def test_the_scale_of_a_call_and_a_disabled_lora_reach_every_mode() -> None:
    it = subject("sd")
    loras.add(it.pipe.unet, "own")
    scaled = it.run(cross_attention_kwargs={"scale": 0.3})
    it.pipe.disable_lora()
    for way in ("toggle", "batched", "weights"):
        with deradiff.realign(it.pipe, "own", lam=1.0, **way_of(way)):
            assert near(it.run(cross_attention_kwargs={"scale": 0.3}), scaled)
    assert torch.equal(it.run(), it.plain)


def test_a_lora_that_is_unloaded_or_fused_under_way(tmp_path: Path) -> None:
    it = subject("sd")
    loras.save(it.pipe, "unet", tmp_path)
    with deradiff.realign(it.pipe, tmp_path):
        it.pipe.fuse_lora()
        with pytest.raises(RealignError, match="fused"):
            it.run()
    assert near(it.run(), it.plain)
    handle = deradiff.realign(it.pipe, tmp_path)
    it.pipe.unload_lora_weights()
    with pytest.raises(RealignError, match="unloaded"):
        it.run()
    handle.remove()
    assert near(it.run(), it.plain)

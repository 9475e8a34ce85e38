"""What users do with pipelines goes on working while they are realigned."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

import deradiff
from deradiff.anchor.ensembles import SwappedWeights
from deradiff.anchor.module_tree import ModuleTree
from deradiff.errors import RealignError

from .pipelines import known, near, sample, subject
from .trace import difference, snapshot

NONE: dict[str, Any] = {"image_encoder": None, "safety_checker": None, "feature_extractor": None}


def expected(lam: float = 0.5) -> torch.Tensor:
    it = known("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=lam):
        return it.run()


@pytest.mark.parametrize(("wrap", "first"), [("module", "compile"), ("method", "realign")])
def test_torch_compile(wrap: str, first: str) -> None:
    torch._dynamo.reset()
    it = subject("sd")

    def compiled() -> None:
        if wrap == "module":
            it.pipe.unet = torch.compile(it.pipe.unet, backend="eager")
        else:
            it.pipe.unet.compile(backend="eager")

    if first == "compile":
        compiled()
    aligned = torch.compile(it.anchors["unet"]) if wrap == "module" else it.anchors["unet"]
    with deradiff.realign(it.pipe, aligned, lam=0.5) as handle:
        if first == "realign":
            compiled()
        for lam in (0.5, 2.0):
            handle.lam = lam
            assert near(it.run(), expected(lam))
        with pytest.raises(RealignError, match="already"):
            deradiff.realign(it.pipe, aligned)
    assert near(it.run(), it.plain)


@pytest.mark.parametrize("feature", ["attention slicing", "freeu", "vae slicing", "channels last", "train"])
def test_switches_of_the_denoiser_hold_for_both_models(feature: str) -> None:
    it = subject("sd")
    switch = {
        "attention slicing": it.pipe.enable_attention_slicing,
        "freeu": lambda: it.pipe.enable_freeu(0.9, 0.2, 1.2, 1.4),
        "vae slicing": it.pipe.vae.enable_slicing,
        "channels last": lambda: it.pipe.unet.to(memory_format=torch.channels_last),
        "train": it.pipe.unet.train,
    }[feature]
    with deradiff.realign(it.pipe, it.anchors, lam=1.0):
        switch()
        mine = it.run()
    it.pipe.unet.load_state_dict(it.anchors["unet"].state_dict())
    assert near(mine, it.run())


@pytest.mark.parametrize("early", [True, False])
def test_model_offload_before_and_after(early: bool) -> None:
    it = subject("sd")

    def offload() -> Any:
        return accelerate.cpu_offload_with_hook(it.pipe.unet, "cpu")[1]

    hook = offload() if early else None
    with deradiff.realign(it.pipe, it.anchors, lam=0.5):
        hook = hook or offload()
        assert near(it.run(), expected())
        hook.offload()
        assert near(it.run(), expected())
    assert torch.equal(it.run(), it.plain)
    hook.remove()
    assert torch.equal(it.run(), it.plain)


def test_saving_and_other_pipelines_made_from_it(tmp_path: Path) -> None:
    it = known("sd")
    before = snapshot(it.pipe)
    with deradiff.realign(it.pipe, it.anchors, lam=0.5):
        it.pipe.save_pretrained(tmp_path)
        again = StableDiffusionPipeline.from_pipe(it.pipe, **NONE)
        again.set_progress_bar_config(disable=True)
        assert torch.equal(sample(it.specimen, again), expected_inside := it.run())  # they share the denoiser
        image = StableDiffusionImg2ImgPipeline(**it.pipe.components, requires_safety_checker=False)
        image.set_progress_bar_config(disable=True)
        other = known("sd_img2img")
        mine = sample(other.specimen, image)
    assert difference(before, snapshot(it.pipe)) == []
    with deradiff.realign(image, it.anchors, lam=0.5):
        assert torch.equal(sample(other.specimen, image), mine)
    assert not near(mine, other.plain)
    assert not near(expected_inside, it.plain)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    assert type(loaded) is StableDiffusionPipeline
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(sample(it.specimen, loaded), it.plain)


def test_copies() -> None:
    it = known("sd")
    with deradiff.realign(it.pipe, it.anchors):
        for part in (it.pipe, it.pipe.unet):
            with pytest.raises(RealignError, match="copied"):
                copy.deepcopy(part)
            with pytest.raises(RealignError, match="pickled"):
                pickle.dumps(part)
        assert near(sample(it.specimen, copy.copy(it.pipe)), it.run())
    assert torch.equal(sample(it.specimen, copy.deepcopy(it.pipe)), it.plain)


class Weight:
    """A weight that knows where it is."""

    def __init__(self, device: str) -> None:
        self.data = torch.zeros(1, device=device)

    @property
    def device(self) -> torch.device:
        return self.data.device


@pytest.mark.parametrize("offloaded", [True, False])
def test_under_offload_an_anchors_weights_go_home_after_a_run(offloaded: bool) -> None:
    """Home is the meta device here, and the CPU stands for the accelerator."""
    it, weight = subject("sd"), Weight("meta")
    if offloaded:
        accelerate.cpu_offload_with_hook(it.pipe.unet, "cpu")
    network = SwappedWeights(ModuleTree(it.pipe.unet), {"conv_in.weight": weight})  # pyright: ignore[reportArgumentType]
    weight.data = torch.zeros(1)  # as a run leaves it
    network.on_run_end()
    assert weight.device.type == ("meta" if offloaded else "cpu")

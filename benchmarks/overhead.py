"""What realignment itself costs a denoiser's call: Python that a GPU waits for.

    python benchmarks/overhead.py --json benchmarks/results/overhead.json

Builds the module trees of SD1.5, SDXL and FLUX at tiny width, so that a call is Python and little else, with an anchor
in LoRA form (toggle, batched) and as a full network (separate). CPU time of one thread, medians of paired repeats.
A realigned call at 0 < lam < 1 is compared with what it can't do without: a plain call of each model, or for `batched`
one plain call of the stacked batch in which PEFT routes each row. `overhead_ms_lams_...` has one lam an image;
`alone_ms_...` is a realigned call whose networks answer at once, which is free of their noise.
"""

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from rich.console import Console
from rich.table import Table

import deradiff
from deradiff.anchor.inputs import DenoiserInputs

WARM, REPEATS, ROWS = 3, 60, 2
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def sd15() -> tuple[Any, dict[str, Any]]:
    """The tree of SD1.5's UNet, and the inputs of a call."""
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16, 32, 32), attention_head_dim=8, cross_attention_dim=16, norm_num_groups=4
    )
    inputs = {"sample": torch.randn(ROWS, 4, 8, 8), "encoder_hidden_states": torch.randn(ROWS, 4, 16)}
    return unet, {**inputs, "timestep": torch.tensor(10), "return_dict": False}


def sdxl() -> tuple[Any, dict[str, Any]]:
    """The tree of SDXL's UNet, and the inputs of a call."""
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=16,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
    )
    added = {"text_embeds": torch.randn(ROWS, 8), "time_ids": torch.randn(ROWS, 6)}
    inputs = {"sample": torch.randn(ROWS, 4, 8, 8), "encoder_hidden_states": torch.randn(ROWS, 4, 16)}
    return unet, {**inputs, "timestep": torch.tensor(10), "added_cond_kwargs": added, "return_dict": False}


def flux() -> tuple[Any, dict[str, Any]]:
    """The tree of FLUX's transformer, and the inputs of a call."""
    transformer = FluxTransformer2DModel(
        in_channels=4,
        num_layers=19,
        num_single_layers=38,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=True,
    )
    ids = {"img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(4, 3)}
    inputs = {"hidden_states": torch.randn(ROWS, 4, 4), "encoder_hidden_states": torch.randn(ROWS, 4, 16)}
    rest = {"pooled_projections": torch.randn(ROWS, 8), "timestep": torch.full((ROWS,), 0.5)}
    return transformer, {**inputs, **rest, **ids, "guidance": torch.ones(ROWS), "return_dict": False}


TREES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {"sd15": sd15, "sdxl": sdxl, "flux": flux}


def pipeline_around(denoiser: Any) -> Any:
    """A pipeline that holds a denoiser; it is never called as a whole."""
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=4)
    parts = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    scheduler = DDIMScheduler(clip_sample=False)
    if isinstance(denoiser, FluxTransformer2DModel):
        texts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        return FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae, transformer=denoiser, **texts)
    return StableDiffusionPipeline(vae=vae, unet=denoiser, scheduler=scheduler, **parts, requires_safety_checker=False)


def with_lora(denoiser: Any) -> Any:
    """The denoiser with a LoRA, loaded and not trained, called ``anchor``."""
    denoiser.add_adapter(LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False), adapter_name="anchor")
    return denoiser


def times(calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]]) -> dict[str, Any]:
    """Milliseconds of CPU time of each call, (REPEATS,), after a preparation that isn't timed; interleaved."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()  # a collection would hit one of the calls
    with torch.no_grad():
        for repeat in range(WARM + REPEATS):
            for name, (prepare, call) in calls.items():
                prepare()
                began = time.thread_time()
                call()
                if repeat >= WARM:
                    taken[name].append(1000 * (time.thread_time() - began))
    gc.enable()
    return {name: np.array(values) for name, values in taken.items()}


def measure(name: str) -> dict[str, float]:
    """All figures of one module tree."""
    found: dict[str, float] = {}
    for ensemble, anchor in (
        ("toggle", "anchor"),
        ("batched", "anchor"),
        ("separate", None),
    ):
        torch.manual_seed(0)
        denoiser, inputs = TREES[name]()
        other, _ = TREES[name]()
        if anchor is not None:
            with_lora(denoiser)
        found |= {
            f"{key}_{name}_{ensemble}": value for key, value in _overheads(denoiser, inputs, ensemble, anchor or other)
        }
        found[f"modules_{name}_{ensemble}"] = sum(1 for _ in denoiser.modules())
    return found


def _overheads(denoiser: Any, inputs: dict[str, Any], ensemble: str, anchor: Any) -> Iterator[tuple[str, float]]:
    plain = type(denoiser).__call__
    with (
        deradiff.realign(pipeline_around(denoiser), anchor, 0.5, ensemble=ensemble) as handle,
        _running(handle),
    ):

        def realigned(lam: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
            return lambda: setattr(handle, "lam", lam), lambda: denoiser(**inputs)

        rows = {ROWS: plain(denoiser, **inputs), 2 * ROWS: plain(denoiser, **_repeated(inputs))}
        hook, first = handle._hooks[0], next(iter(inputs))

        def alone() -> Any:
            return hook(lambda *args, **kwargs: rows[len(kwargs[first])], (), inputs)

        needed = _needed(plain, denoiser, inputs, ensemble)
        taken = times({**needed, "realigned": realigned(0.5), "lams": realigned([0.25, 0.5])})
        yield "alone_ms", float(np.median(times({"alone": (lambda: None, alone)})["alone"]))
    total = sum(taken[name] for name in needed)
    yield "overhead_ms", float(np.median(taken["realigned"] - total))
    yield "overhead_ms_lams", float(np.median(taken["lams"] - total))
    yield "overhead_share", float(np.median((taken["realigned"] - total) / total))
    yield "needed_ms", float(np.median(total))


def _repeated(inputs: dict[str, Any]) -> dict[str, Any]:
    return DenoiserInputs(dict, (), inputs).repeat(2).kwargs


def _running(handle: Any) -> Any:
    """As in a run of the pipeline, when modules are looked through once."""
    return handle._hooks[0].ensemble.tree.running()


def _needed(
    plain: Callable[..., Any], denoiser: Any, inputs: dict[str, Any], ensemble: str
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """The calls that no realignment can do without."""
    layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]

    def adapters(on: bool) -> Callable[[], Any]:
        return lambda: [vars(own).update(_active_adapter=["anchor"], _disable_adapters=not on) for own in layers]

    if ensemble == "batched":
        return {"stacked": (adapters(True), _Routed(plain, denoiser, inputs))}
    return {
        "reference": (adapters(False), lambda: plain(denoiser, **inputs)),
        "aligned": (adapters(True), lambda: plain(denoiser, **inputs)),
    }


class _Routed:
    """The stacked batch by PEFT's own means: hooks that stay on its layers, and one adapter name a row."""

    def __init__(self, plain: Callable[..., Any], denoiser: Any, inputs: dict[str, Any]) -> None:
        self.plain, self.denoiser, self.inputs = plain, denoiser, _repeated(inputs)
        self.names, self.on = ["__base__", "anchor"], False
        for module in denoiser.modules():
            if isinstance(module, BaseTunerLayer):
                module.register_forward_pre_hook(self._route, with_kwargs=True)

    def _route(self, layer: Any, args: Any, kwargs: Any) -> Any:
        return (args, {**kwargs, "adapter_names": self.names * (len(args[0]) // 2)}) if self.on else None

    def __call__(self) -> Any:
        self.on = True
        try:
            return self.plain(self.denoiser, **self.inputs)
        finally:
            self.on = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trees", nargs="*", default=list(TREES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {key: value for name in arguments.trees for key, value in measure(name).items()}
    table = Table("figure", "value")
    for key, value in found.items():
        table.add_row(key, f"{value:.3g}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

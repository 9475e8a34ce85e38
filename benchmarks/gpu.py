"""What realignment costs on a GPU: full-size SD1.5 and SDXL UNets with random weights in bf16, no file needed.

    python benchmarks/gpu.py --json benchmarks/results/gpu-NAME.json

For each ensemble the time of a realigned call against a plain call of each model, also under torch.compile; how far the
batched ensemble is from the toggled one in bf16; images a second of nine lams against the published way (one image and
one lam at a time, both networks always); peak memory. About six minutes on a GPU of 80 GB. `--tiny --device cpu` runs
the same on small networks, to see that it works.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from overhead import pipeline_around
from peft import LoraConfig
from rich.console import Console
from rich.table import Table

import deradiff
from deradiff.acceleration import Budget
from deradiff.realignment import sweeping

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
LAMS = tuple(step / 4 for step in range(9))
GUIDANCE, STEPS, WARM, REPEATS = 5.0, 25, 3, 20

SD15 = {"sample_size": 64, "cross_attention_dim": 768}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
NETWORKS: dict[str, dict[str, Any]] = {"sd15": SD15, "sdxl": SDXL}
TINY = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
    "cross_attention_dim": 32,
    "transformer_layers_per_block": 1,
}


class Bench:
    """One network with a LoRA that is called ``anchor``, and a copy of it with the LoRA merged."""

    def __init__(self, config: dict[str, Any], device: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.device, self.dtype, self.size = device, dtype, config["sample_size"]
        self.width = config["cross_attention_dim"]
        with torch.device(device):
            self.unet: Any = UNet2DConditionModel(**config).to(dtype).eval()
        self.unet.add_adapter(LoraConfig(r=16, target_modules=TARGETS, init_lora_weights=False), adapter_name="anchor")
        self.unet.to(device, dtype)
        self.merged = copy.deepcopy(self.unet)
        self.merged.fuse_lora()
        self.merged.unload_lora()

    def inputs(self, rows: int) -> dict[str, Any]:
        """Of a call; the same for the same number of rows."""
        generator = torch.Generator(self.device).manual_seed(1)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=self.device).to(self.dtype)

        found = {"sample": draw(rows, 4, self.size, self.size), "encoder_hidden_states": draw(rows, 77, self.width)}
        found |= {"timestep": torch.tensor(500, device=self.device), "return_dict": False}
        if self.unet.config.addition_embed_type:
            found["added_cond_kwargs"] = {"text_embeds": draw(rows, 1280), "time_ids": draw(rows, 6)}
        return found

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """The median time of a call, the device's work included."""
        taken = []
        for repeat in range(WARM + REPEATS):
            seconds = self.seconds(call)
            if repeat >= WARM:
                taken.append(1000 * seconds)
        return float(np.median(taken))

    def seconds(self, call: Callable[[], Any]) -> float:
        """The time of one call, the device's work included."""
        self._wait()
        began = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - began

    def pipeline(self) -> Any:
        """A pipeline without text encoders around the network."""
        vae, scheduler = AutoencoderKL(block_out_channels=(4,), norm_num_groups=4), DDIMScheduler(clip_sample=False)
        if self.unet.config.addition_embed_type:
            parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
            pipe: Any = StableDiffusionXLPipeline(vae=vae, unet=self.unet, scheduler=scheduler, **parts)
        else:
            pipe = pipeline_around(self.unet)
        pipe.vae.to(self.device, self.dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def sample(self, pipe: Any, images: int) -> None:
        """Latents of one prompt and seed."""
        embeds = self.inputs(1)["encoder_hidden_states"].expand(images, -1, -1)
        given = {"prompt_embeds": embeds, "negative_prompt_embeds": torch.zeros_like(embeds)}
        if self.unet.config.addition_embed_type:
            pooled = torch.zeros(images, 1280, device=self.device, dtype=self.dtype)
            given |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": pooled}
        generators = [torch.Generator(self.device).manual_seed(0) for _ in range(images)]
        settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "latent"}
        pipe(**given, **settings, generator=generators)

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        """Forget the largest memory so far."""
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float | None:
        """The largest memory since, GB; None where it isn't known."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.device.startswith("cuda") else None


@torch.no_grad()
def calls(bench: Bench, backend: str = "") -> Iterator[tuple[str, float | None]]:
    """Milliseconds of a call of two rows (branches of guidance), plain and realigned; by a backend of torch.compile."""
    inputs, end = bench.inputs(2), "_compiled" if backend else ""
    unet, merged = bench.unet, bench.merged
    if backend:
        unet, merged = (torch.compile(own, backend=backend) for own in (unet, merged))
    unet.disable_adapters()
    reference = bench.milliseconds(lambda: unet(**inputs))
    aligned = bench.milliseconds(lambda: merged(**inputs))
    unet.enable_adapters()
    yield f"plain_ms{end}", reference + aligned
    outputs = {}
    for ensemble in ("toggle", "batched", "separate"):
        anchor = merged if ensemble == "separate" else "anchor"
        if ensemble == "separate":
            unet.disable_adapters()
        bench.reset_peak()
        with (
            deradiff.realign(pipeline_around(unet), anchor, 0.5, component="unet", ensemble=ensemble) as handle,
            handle._hooks[0].ensemble.tree.running(),
        ):
            yield f"{ensemble}_ms{end}", bench.milliseconds(lambda: unet(**inputs))
            outputs[ensemble] = unet(**inputs)[0].float()
        yield f"{ensemble}_peak_gb{end}", bench.peak()
        unet.enable_adapters()
    difference = (outputs["batched"] - outputs["toggle"]).norm() / outputs["toggle"].norm()
    yield f"batched_error{end}", float(difference)


@torch.no_grad()
def published(bench: Bench, inputs: dict[str, Any]) -> None:
    """One image at one lam: two networks at every step."""
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(STEPS)
    latents = inputs["sample"][:1]
    for t in scheduler.timesteps:
        given = {**inputs, "sample": latents.expand(2, -1, -1, -1), "timestep": t.to(bench.device)}
        bench.unet.disable_adapters()
        reference = bench.unet(**given)[0]
        noise = 0.5 * (reference + bench.merged(**given)[0])
        without, conditional = noise.chunk(2)
        latents = scheduler.step(without + GUIDANCE * (conditional - without), t, latents).prev_sample
    bench.unet.enable_adapters()


@torch.no_grad()
def throughput(bench: Bench, batch: int) -> Iterator[tuple[str, float | None]]:
    """Images a second, latents alone, of one prompt at nine lams."""
    inputs = bench.inputs(2)
    published(bench, inputs)
    yield "published_images_per_s", 1 / bench.seconds(lambda: published(bench, inputs))
    pipe = bench.pipeline()
    for name, policy in (("exact", deradiff.Exact()), ("adaptive", deradiff.Adaptive(0.01))):
        bench.reset_peak()
        with (
            deradiff.realign(pipe, "anchor", list(LAMS), component="unet") as handle,
            sweeping(handle, len(LAMS), policy, Budget(limit=batch)),
        ):
            bench.sample(pipe, len(LAMS))
            yield f"{name}_images_per_s", len(LAMS) / bench.seconds(lambda: bench.sample(pipe, len(LAMS)))
        yield f"{name}_peak_gb", bench.peak()


def measure(
    config: dict[str, Any], device: str, dtype: torch.dtype, batch: int, backend: str
) -> dict[str, float | None]:
    """All figures of one network."""
    found = dict(calls(Bench(config, device, dtype)))
    found |= dict(throughput(Bench(config, device, dtype), batch))
    return found | dict(calls(Bench(config, device, dtype), backend))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=9, help="rows of a branch at once")
    parser.add_argument("--tiny", action="store_true", help="small networks, to see that it works")
    options = parser.parse_args()
    began, on_gpu = time.perf_counter(), options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else options.device
    found: dict[str, Any] = {"device": device, "torch": torch.__version__}
    for name, config in NETWORKS.items():
        settings = {**config, **TINY} if options.tiny else config
        dtype = torch.bfloat16 if on_gpu else torch.float32
        row = measure(settings, options.device, dtype, options.batch, "eager" if options.tiny else "inductor")
        found |= {f"{name}_{key}": value for key, value in row.items()}
        if options.json:  # network by network: a stop loses one
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    table = Table("figure", "value")
    for key, value in found.items():
        table.add_row(key, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
    Console().print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()

"""Make the embedded testbed again from nothing: ``python -m deradiff.testbed.build --out DIR``.

Stages: autoencoder, text encoder, denoiser, pool of samples, anchors. A stage whose result is already in DIR is
skipped, so an interrupted build goes on where it stopped. Every stage reads what the one before wrote, rounded, so
that the anchors are trained on exactly the reference that is shipped. One thread is fastest on networks this small.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from rich.console import Console
from rich.progress import Progress
from transformers import CLIPTextModel, CLIPTokenizer

from deradiff.testbed.architecture import make_sampler, make_tokenizer
from deradiff.testbed.pool import sample_pool
from deradiff.testbed.train_anchor import Training, train_anchor
from deradiff.testbed.train_text import train_text_encoder
from deradiff.testbed.train_unet import train_unet
from deradiff.testbed.train_vae import sharpen_decoder, train_vae

console = Console()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long every stage trains, and which anchors there are as (beta, seed)."""

    vae_steps: int = 3000
    decoder_steps: tuple[int, ...] = (1600, 2200)  # two rounds of the rate's rise and fall
    text_steps: int = 600
    unet_steps: int = 5500
    scenes: int = 24_000
    pool_prompts: int = 192
    anchor_steps: int = 240
    anchors: tuple[tuple[float, int], ...] = tuple(
        (beta, seed) for seed in (0, 1) for beta in (0.05, 0.1, 0.2, 0.025, 0.0125)
    )


QUICK = Plan(
    vae_steps=4,
    decoder_steps=(2, 2),
    text_steps=4,
    unet_steps=4,
    scenes=64,
    pool_prompts=2,
    anchor_steps=2,
    anchors=((0.05, 0),),
)


@contextmanager
def _stage(name: str, steps: int) -> Iterator[Callable[..., None]]:
    """A progress bar for one stage, as the ``report`` its trainer calls each step, and its wall-clock at the end."""
    start = time.perf_counter()
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as progress:
        task = progress.add_task(name, total=steps)

        def report(step: int, loss: float | None = None) -> None:
            told = "" if loss is None else f" loss {loss:.4f}"
            progress.update(task, completed=step + 1, description=f"{name}{told}")

        yield report
    console.print(f"{name}: {steps} steps in {time.perf_counter() - start:.0f} s")


def build_reference(folder: Path, plan: Plan) -> None:
    """Train and write the parts of the pipeline that ``folder`` still lacks, then its index and scheduler."""
    if not (folder / "tokenizer").exists():
        make_tokenizer().save_pretrained(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    if not (folder / "vae").exists():
        with _stage("autoencoder", plan.vae_steps) as report:
            vae = train_vae(steps=plan.vae_steps, report=report)
        for seed, steps in enumerate(plan.decoder_steps):
            with _stage("decoder", steps) as report:
                sharpen_decoder(vae, steps=steps, seed=seed, report=report)
        vae.half().save_pretrained(folder / "vae")
    if not (folder / "text_encoder").exists():
        with _stage("text encoder", plan.text_steps) as report:
            encoder = train_text_encoder(tokenizer, steps=plan.text_steps, report=report)
        # in float32: transformers loads a model as it was stored, diffusers in float32, and the two must agree
        encoder.save_pretrained(folder / "text_encoder")
    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).requires_grad_(False)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).requires_grad_(False)
    if not (folder / "unet").exists():
        with _stage("denoiser", plan.unet_steps) as report:
            unet = train_unet(vae, tokenizer, encoder, steps=plan.unet_steps, scenes=plan.scenes, report=report)
            unet.half().save_pretrained(folder / "unet")
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32),
        scheduler=make_sampler(),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    pipe.scheduler.save_pretrained(folder / "scheduler")
    pipe.save_config(folder)


def build_anchors(folder: Path, reference: Path, plan: Plan) -> None:
    """Train and write the anchors that ``folder`` still lacks, all on one pool of samples."""
    missing = [
        (beta, seed, target)
        for beta, seed in plan.anchors
        if not (target := folder / f"warmth-beta{beta:g}-seed{seed}").exists()
    ]
    if not missing:
        return
    pipe = StableDiffusionPipeline.from_pretrained(reference, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    with _stage("pool of samples", plan.pool_prompts) as report:
        pool = sample_pool(pipe, prompts=plan.pool_prompts, report=report)
    for beta, seed, target in missing:
        with _stage(target.name, plan.anchor_steps) as report:
            train_anchor(pipe, pool, target, Training(beta=beta, seed=seed, steps=plan.anchor_steps), report=report)


def main() -> None:
    """Build what is missing under ``--out``: ``pipeline/`` and ``anchors/``."""
    parser = argparse.ArgumentParser(description="Train the embedded testbed from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder to fill; finished stages in it are kept")
    parser.add_argument("--quick", action="store_true", help="a few steps a stage: shows that every stage runs")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    torch.set_num_threads(1)
    build_reference(arguments.out / "pipeline", plan)
    build_anchors(arguments.out / "anchors", arguments.out / "pipeline", plan)
    console.print(f"built in {arguments.out}")


if __name__ == "__main__":
    main()

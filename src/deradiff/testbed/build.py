"""Rebuild the embedded testbed: ``python -m deradiff.testbed.build --out DIR``.

Stages: autoencoder, text encoder, denoiser, own samples, anchors. Stages with results in DIR are
skipped, so that an interrupted build resumes. Every stage reads the rounded files of the previous one, so that anchors
are trained on exactly the reference that is shipped. One thread is fastest for networks of this size.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from rich.console import Console
from rich.progress import Progress
from transformers import CLIPTextModel, CLIPTokenizer

from deradiff.align import Settings, Step, align
from deradiff.align.self_label import self_label
from deradiff.testbed import prompts
from deradiff.testbed.architecture import make_sampler, make_tokenizer
from deradiff.testbed.judge import warmth
from deradiff.testbed.train_text import train_text_encoder
from deradiff.testbed.train_unet import train_unet
from deradiff.testbed.train_vae import sharpen_decoder, train_vae

console = Console()

POOL_IMAGES = 8  # of each caption
TRAINING: dict[str, Any] = {
    "train_batch_size": 12,
    "draws": 2,
    "learning_rate": 1e-3,
    "rank": 4,
    "target_modules": (
        *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out"),
        *("ff.net.0.proj", "ff.net.2", "conv1", "conv2"),
    ),
}
WEIGHTS = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The number of steps of every stage, and the anchors as (beta, seed)."""

    vae_steps: int = 3000
    decoder_steps: tuple[int, ...] = (1600, 2200)  # two cycles of the learning rate
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
def _stage(name: str, steps: int) -> Generator[Callable[..., None]]:
    """Show a progress bar for one stage; yields its ``report`` function and prints the wall-clock time at the end."""
    start = time.perf_counter()
    with Progress(*Progress.get_default_columns(), console=console, transient=True) as progress:
        task = progress.add_task(name, total=steps)

        def report(step: int, loss: float | None = None) -> None:
            suffix = "" if loss is None else f" loss {loss:.4f}"
            progress.update(task, completed=step + 1, description=f"{name}{suffix}")

        yield report
    console.print(f"{name}: {steps} steps in {time.perf_counter() - start:.0f} s")


def build_reference(folder: Path, plan: Plan) -> None:
    """Train and save the missing parts of the pipeline in ``folder``, then its index and scheduler."""
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
        # by the names that published text encoders have, which all versions of transformers read and old ones write
        named = encoder.state_dict().items()
        weights = {f"text_model.{name.removeprefix('text_model.')}": weight for name, weight in named}
        encoder.save_pretrained(folder / "text_encoder", state_dict=weights)
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
    """Train and save the missing anchors in ``folder``, all on the same samples of the reference.

    Half of the captions leave size or background open, where samples differ in warmth.
    """
    missing = [
        (beta, seed, target)
        for beta, seed in plan.anchors
        if not (target := folder / f"warmth-beta{beta:g}-seed{seed}").exists()
    ]
    if not missing:
        return
    work, captions, done = folder.parent / "training", prompts(plan.pool_prompts, drop=0.5), 0
    with _stage("own samples", POOL_IMAGES * len(captions)) as report:

        def advance_samples(count: int) -> None:
            nonlocal done
            done += count
            report(done - 1)

        pool: dict[str, Any] = {"images": POOL_IMAGES, "steps": 20, "guidance": 1.0, "advance": advance_samples}
        pairs = self_label(_load(reference), captions, warmth, work / "pairs", **pool)
    card = {"reference": "deradiff.testbed", "reward": "deradiff.testbed.warmth"}
    for beta, seed, target in missing:
        settings = Settings(beta=beta, seed=seed, steps=plan.anchor_steps, **TRAINING)
        with _stage(target.name, plan.anchor_steps) as report:

            def advance_step(step: Step, report: Callable[..., None] = report) -> None:
                report(step.step - 1, step.loss)

            align(_load(reference), pairs, work / target.name, settings, card=card, advance=advance_step)
        target.mkdir(parents=True)
        shutil.copy(work / target.name / WEIGHTS, target)


def _load(reference: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(reference, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    """Build the missing parts of ``pipeline/`` and ``anchors/`` under ``--out``."""
    parser = argparse.ArgumentParser(description="Train the embedded testbed from scratch.")
    parser.add_argument("--out", type=Path, required=True, help="folder to fill; finished stages in it are kept")
    parser.add_argument("--quick", action="store_true", help="a few steps in each stage, to check that each one runs")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    torch.set_num_threads(1)
    build_reference(arguments.out / "pipeline", plan)
    build_anchors(arguments.out / "anchors", arguments.out / "pipeline", plan)
    console.print(f"built in {arguments.out}")


if __name__ == "__main__":
    main()

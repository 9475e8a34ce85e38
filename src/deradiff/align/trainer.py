"""Training an anchor on preferences with Hugging Face accelerate; every check runs before anything is computed."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from deradiff.align.cache import Cache
from deradiff.align.checkpoint import load_checkpoint, lock_folder, write_errors
from deradiff.align.model_card import describe_anchor
from deradiff.align.pairs import Pairs
from deradiff.align.policy import AnchorFormat, Policy, save_anchor
from deradiff.align.processes import join_processes
from deradiff.align.settings import Settings
from deradiff.align.training import Step, Training
from deradiff.anchor.earlier_weights import CHECKPOINT, earlier_weights
from deradiff.anchor.lora_files import check_layout
from deradiff.errors import AlignError
from deradiff.hub.model_card import write_model_card
from deradiff.realignment.denoisers import denoisers, pick

_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def align(
    pipe: Any,
    pairs: Pairs,
    folder: Path,
    settings: Settings,
    *,
    card: dict[str, Any],
    tracker: str | None = None,
    save_every: int = 100,
    format: AnchorFormat = "diffusers",
    advance: Callable[[Step], None] = lambda step: None,
    cached: Callable[[int], None] = lambda count: None,
) -> None:
    """Train an anchor, or resume an earlier training with the same settings in the same folder.

    The random numbers of a step depend on its index alone. A training that was killed and resumed therefore takes the
    same steps, and so do several processes that share each step's pairs.

    Args:
        pipe: the reference pipeline; its denoiser is trained in place.
        pairs: preferences.
        folder: receives the anchor, a README.md for the hub, ``log.jsonl``, ``checkpoint.pt`` and ``cache/``.
        settings: of the training.
        card: further entries of the anchor's card, such as the model's name; JSON-able.
        tracker: one of accelerate's trackers, such as ``tensorboard`` or ``wandb``.
        save_every: steps between checkpoints.
        format: of a LoRA: ``diffusers``, or ``kohya`` (ComfyUI, A1111).
        advance: receives each step.
        cached: receives 1 after each prompt and image that enters the cache.

    Raises:
        AlignError: unusable settings or pipeline, a folder with another training, or another process trains there.
    """
    accelerator, component, denoiser = _prepare(pipe, folder, settings, tracker, format)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval().to(accelerator.device)
    record = settings.as_json() | {"data": pairs.fingerprint} | card
    cache = Cache(folder / "cache" / sha256(json.dumps(record).encode()).hexdigest()[:12], pipe, denoiser, settings)
    with lock_folder(folder) if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            cache.fill(pairs, cached)
        training = Training(accelerator, cache, Policy(denoiser, settings), pairs, folder, settings, record)
        if tracker:
            accelerator.init_trackers(
                "deradiff", config={**settings.as_json(), "target_modules": " ".join(settings.target_modules)}
            )
        for step in training.steps(save_every):
            if tracker:
                accelerator.log(
                    {"loss": step.loss, "accuracy": step.accuracy, "rate": step.learning_rate}, step=step.step
                )
            advance(step)
        accelerator.end_training()
        if accelerator.is_main_process:
            entries = record | {"beta_convention": training.convention.card()}
            save_anchor(pipe, component, training.final(), folder, entries, format)
            write_model_card(folder, describe_anchor(entries))


def check_training(
    pipe: Any,
    folder: Path,
    settings: Settings,
    *,
    card: dict[str, Any],
    tracker: str | None = None,
    format: AnchorFormat = "diffusers",
) -> None:
    """Check the arguments of :func:`align` before preferences are sampled.

    Raises:
        AlignError: the errors of :func:`align` that can be known beforehand.
    """
    _prepare(pipe, folder, settings, tracker, format)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no right to write", str(folder))
    load_checkpoint(folder, settings.as_json() | card)


def _prepare(
    pipe: Any, folder: Path, settings: Settings, tracker: str | None, format: AnchorFormat
) -> tuple[Accelerator, str, torch.nn.Module]:
    """The accelerator, the denoiser's name and the denoiser; raises as :func:`check_training`."""
    if settings.full and format != "diffusers":
        raise AlignError(f"the format {format} is of LoRAs, and this training is of all weights; leave one of them out")
    accelerator = _make_accelerator(settings, tracker, folder)
    if accelerator.distributed_type in _SHARDED:
        raise AlignError(
            f"accelerate is configured for {accelerator.distributed_type.value}, which splits the weights among "
            "processes; expected whole weights in each (DDP, examples/accelerate/ddp.yaml)"
        )
    if settings.train_batch_size % (settings.gradient_accumulation_steps * accelerator.num_processes):
        raise AlignError(
            f"a batch of {settings.train_batch_size} pairs can't be split among {accelerator.num_processes} processes "
            f"in {settings.gradient_accumulation_steps} accumulation steps; take a multiple of their product"
        )
    component, denoiser = _pick_denoiser(pipe, settings)
    check_layout(denoiser, format, get_args(AnchorFormat), AlignError)
    names = [f".{name}" for name, _ in denoiser.named_modules()]
    if not settings.full and not any(
        name.endswith(f".{target}") for name in names for target in settings.target_modules
    ):
        raise AlignError(
            f"no LoRA on the layers {', '.join(settings.target_modules)}: {component} has none of these names"
        )
    if not (folder / CHECKPOINT).exists():
        others = [name for name in ("model_index.json", component) if (folder / name).exists()]
        if others:
            raise AlignError(f"{folder} holds {others[0]}, which this training didn't make; take another folder")
    if earlier_weights(folder, AlignError) and not (folder / CHECKPOINT).exists():
        raise AlignError(f"{folder} holds weights that this training didn't make; take another folder")
    return accelerator, component, denoiser


def _make_accelerator(settings: Settings, tracker: str | None, folder: Path) -> Accelerator:
    join_processes()
    try:
        accelerator = Accelerator(mixed_precision=settings.mixed_precision, log_with=tracker, project_dir=folder)
    except ValueError as error:  # an unsupported precision or an unknown tracker
        raise AlignError(f"mixed_precision {settings.mixed_precision!r}, tracker {tracker!r}: {error}") from error
    if tracker and not accelerator.log_with:
        raise AlignError(f"the tracker {tracker!r} isn't installed: pip install {tracker}")
    return accelerator


def _pick_denoiser(pipe: Any, settings: Settings) -> tuple[str, torch.nn.Module]:
    candidates = denoisers(pipe) if settings.component is None else pick(pipe, settings.component)
    if len(candidates) > 1:
        raise AlignError(f"{type(pipe).__name__} has the denoisers {', '.join(candidates)}; select one with component")
    return next(iter(candidates.items()))

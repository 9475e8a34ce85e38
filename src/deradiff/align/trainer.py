"""Training an anchor on preferences, on Hugging Face accelerate."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from deradiff.align.cache import Cache
from deradiff.align.pairs import Pairs
from deradiff.align.policy import Policy
from deradiff.align.save import save_anchor
from deradiff.align.settings import Settings
from deradiff.align.training import Step, Training
from deradiff.errors import AlignError
from deradiff.realignment.denoisers import denoisers, pick


def align(
    pipe: Any,
    pairs: Pairs,
    folder: Path,
    settings: Settings,
    *,
    card: dict[str, Any],
    tracker: str | None = None,
    save_every: int = 100,
    advance: Callable[[Step], None] = lambda step: None,
    cached: Callable[[int], None] = lambda count: None,
) -> None:
    """Train an anchor into a folder, going on where an earlier training of the same settings stopped.

    What each step draws depends on its number alone, so a training that is killed and goes on takes the same steps,
    and so do several processes that share each step's pairs.

    Args:
        pipe: the reference pipeline; its denoiser is trained in place.
        pairs: preferences.
        folder: gets the anchor, ``log.jsonl``, ``checkpoint.pt`` and ``cache/``.
        settings: of training.
        card: what else the anchor's card should say, such as the model's name.
        tracker: of accelerate's: ``tensorboard``, ``wandb``.
        save_every: steps from one checkpoint to the next.
        advance: is told of each step.
        cached: is told of each prompt and image made ready.

    Raises:
        AlignError: the settings, the folder's earlier training or the pipeline don't allow it.
    """
    accelerator = _accelerator(settings, tracker, folder)
    if settings.pairs % (settings.accumulation * accelerator.num_processes):
        raise AlignError(
            f"{settings.pairs} pairs a step can't be shared by {accelerator.num_processes} processes in "
            f"{settings.accumulation} parts; take a multiple"
        )
    component, denoiser = _denoiser(pipe, settings)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval().to(accelerator.device)
    told = settings.model_dump(mode="json") | {"data": pairs.fingerprint} | card
    cache = Cache(folder / "cache" / sha256(json.dumps(told).encode()).hexdigest()[:12], pipe, denoiser, settings)
    with accelerator.main_process_first():
        cache.fill(pairs, cached)
    training = Training(accelerator, cache, Policy(denoiser, settings), pairs, folder, settings, told)
    if tracker:
        accelerator.init_trackers("deradiff", config={**settings.model_dump(), "targets": " ".join(settings.targets)})
    for step in training.steps(save_every):
        if tracker:
            accelerator.log({"loss": step.loss, "accuracy": step.accuracy, "rate": step.learning_rate}, step=step.step)
        advance(step)
    accelerator.end_training()
    if accelerator.is_main_process:
        save_anchor(pipe, component, training.final(), folder, told | {"beta_convention": training.convention.card()})


def _accelerator(settings: Settings, tracker: str | None, folder: Path) -> Accelerator:
    try:
        accelerator = Accelerator(mixed_precision=settings.precision, log_with=tracker, project_dir=folder)
    except ValueError as error:  # a precision that the machine lacks, an unknown tracker
        raise AlignError(f"precision {settings.precision!r}, tracker {tracker!r}: {error}") from error
    if tracker and not accelerator.log_with:
        raise AlignError(f"the tracker {tracker!r} isn't installed: pip install {tracker}")
    return accelerator


def _denoiser(pipe: Any, settings: Settings) -> tuple[str, torch.nn.Module]:
    found = denoisers(pipe) if settings.component is None else pick(pipe, settings.component)
    if len(found) > 1:
        raise AlignError(f"{type(pipe).__name__} has the denoisers {', '.join(found)}; name one with component")
    return next(iter(found.items()))

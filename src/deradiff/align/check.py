"""What a training needs, looked at before anything is made."""

import errno
import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from deradiff.align import progress
from deradiff.align.files import told
from deradiff.align.settings import Settings
from deradiff.errors import AlignError
from deradiff.realignment.denoisers import denoisers, pick


def check(pipe: Any, folder: Path, settings: Settings, *, card: dict[str, Any], tracker: str | None = None) -> None:
    """Refuse, before anything is made, what :func:`align` would refuse later; arguments as there.

    Raises:
        AlignError: the settings, the folder or its earlier training, the pipeline or the tracker don't allow it.
    """
    checked(pipe, folder, settings, tracker)
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no right to write", str(folder))
    progress.load(folder, settings.model_dump(mode="json") | card)


def checked(
    pipe: Any, folder: Path, settings: Settings, tracker: str | None
) -> tuple[Accelerator, str, torch.nn.Module]:
    """What a training runs on, and the name of the denoiser and itself; raises as :func:`check`."""
    accelerator = _accelerator(settings, tracker, folder)
    if settings.train_batch_size % (settings.gradient_accumulation_steps * accelerator.num_processes):
        raise AlignError(
            f"{settings.train_batch_size} pairs a step can't be shared by {accelerator.num_processes} processes in "
            f"{settings.gradient_accumulation_steps} parts; take a multiple"
        )
    component, denoiser = _denoiser(pipe, settings)
    names = [f".{name}" for name, _ in denoiser.named_modules()]
    if not settings.full and not any(
        name.endswith(f".{target}") for name in names for target in settings.target_modules
    ):
        raise AlignError(
            f"no LoRA on the layers {', '.join(settings.target_modules)}: {component} has none of these names"
        )
    if not (folder / progress.CHECKPOINT).exists():
        others = [name for name in ("model_index.json", component) if (folder / name).exists()]
        if others:
            raise AlignError(f"{folder} holds {others[0]}, which this training didn't make; take another folder")
    return accelerator, component, denoiser


def _accelerator(settings: Settings, tracker: str | None, folder: Path) -> Accelerator:
    try:
        accelerator = Accelerator(mixed_precision=settings.mixed_precision, log_with=tracker, project_dir=folder)
    except ValueError as error:  # a precision that the machine lacks, an unknown tracker
        raise AlignError(f"mixed_precision {settings.mixed_precision!r}, tracker {tracker!r}: {error}") from error
    if tracker and not accelerator.log_with:
        raise AlignError(f"the tracker {tracker!r} isn't installed: pip install {tracker}")
    return accelerator


def _denoiser(pipe: Any, settings: Settings) -> tuple[str, torch.nn.Module]:
    found = denoisers(pipe) if settings.component is None else pick(pipe, settings.component)
    if len(found) > 1:
        raise AlignError(f"{type(pipe).__name__} has the denoisers {', '.join(found)}; name one with component")
    return next(iter(found.items()))

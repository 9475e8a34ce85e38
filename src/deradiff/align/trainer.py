"""Training an anchor on preferences, on Hugging Face accelerate."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from deradiff.align.cache import Cache
from deradiff.align.check import checked
from deradiff.align.files import held
from deradiff.align.pairs import Pairs
from deradiff.align.policy import Policy
from deradiff.align.save import save_anchor
from deradiff.align.settings import Settings
from deradiff.align.training import Step, Training


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
        AlignError: the settings, the folder's earlier training or the pipeline don't allow it, or another process
            trains there.
    """
    accelerator, component, denoiser = checked(pipe, folder, settings, tracker)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval().to(accelerator.device)
    said = settings.model_dump(mode="json") | {"data": pairs.fingerprint} | card
    cache = Cache(folder / "cache" / sha256(json.dumps(said).encode()).hexdigest()[:12], pipe, denoiser, settings)
    with held(folder) if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            cache.fill(pairs, cached)
        training = Training(accelerator, cache, Policy(denoiser, settings), pairs, folder, settings, said)
        if tracker:
            accelerator.init_trackers(
                "deradiff", config={**settings.model_dump(), "target_modules": " ".join(settings.target_modules)}
            )
        for step in training.steps(save_every):
            if tracker:
                accelerator.log(
                    {"loss": step.loss, "accuracy": step.accuracy, "rate": step.learning_rate}, step=step.step
                )
            advance(step)
        accelerator.end_training()
        if accelerator.is_main_process:
            save_anchor(
                pipe, component, training.final(), folder, said | {"beta_convention": training.convention.card()}
            )

"""Training an anchor on preferences, on Hugging Face accelerate."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel

from deradiff.align import progress
from deradiff.align.batch import Drawn, draw, judge
from deradiff.align.cache import Cache
from deradiff.align.convention import convention
from deradiff.align.pairs import Pairs
from deradiff.align.policy import Policy
from deradiff.align.save import save_anchor
from deradiff.align.settings import Settings
from deradiff.errors import AlignError
from deradiff.realignment.denoisers import denoisers, pick

_LONGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Step:
    """A step that was taken: its number from 1, loss, share of pairs whose chosen image the policy favours, rate."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float


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
        folder: gets the anchor, ``log.jsonl`` and, until it is done, ``checkpoint.pt`` and ``cache/``.
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
    training = _Training(accelerator, cache, Policy(denoiser, settings), pairs, folder, settings, told)
    if tracker:
        accelerator.init_trackers("deradiff", config={**settings.model_dump(), "targets": " ".join(settings.targets)})
    for step in training.steps(save_every):
        if tracker:
            accelerator.log({"loss": step.loss, "accuracy": step.accuracy, "rate": step.learning_rate}, step=step.step)
        advance(step)
    accelerator.end_training()
    if accelerator.is_main_process:
        save_anchor(pipe, component, training.final(), folder, told | {"beta_convention": training.convention.card()})


class _Training:
    def __init__(
        self,
        accelerator: Accelerator,
        cache: Cache,
        policy: Policy,
        pairs: Pairs,
        folder: Path,
        settings: Settings,
        told: dict[str, Any],
    ) -> None:
        self.accelerator, self.cache, self.policy, self.settings = accelerator, cache, policy, settings
        self.pairs, self.folder, self.told = pairs, folder, told
        self.convention = convention(settings.convention, cache.pipe.scheduler)
        parameters = list(policy.trained.values())
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0, betas=(0.9, 0.99))
        self.rate = get_cosine_schedule_with_warmup(optimizer, settings.steps // 15, settings.steps)
        self.ema = EMAModel(parameters, decay=settings.ema) if settings.ema else None
        self.network, self.optimizer = accelerator.prepare(policy.denoiser, optimizer)
        self.done = self._resume()

    def steps(self, save_every: int) -> Iterator[Step]:
        """Take the steps that are left."""
        log = progress.Log(self.folder, self.done) if self.accelerator.is_main_process else None
        shape = self.cache.condition(self.pairs.pairs[0].prompt).shape
        self.network.train()
        while self.done < self.settings.steps:
            rate = float(self.rate.get_last_lr()[0])
            drawn = draw(self.pairs.pairs, shape, self.cache.pipe.scheduler, self.settings, self.done)
            loss, accuracy = self._step(drawn)
            self.done += 1
            step = Step(self.done, loss, accuracy, rate)
            if log:
                log.add(**vars(step))
                if self.done % save_every == 0 or self.done == self.settings.steps:
                    self._save()
            yield step

    def _step(self, drawn: list[Drawn]) -> tuple[float, float]:
        torch.manual_seed(self.settings.seed + self.done)  # of dropout, where a network has it
        world, parts, own = self.accelerator, self.settings.accumulation, list[torch.Tensor]()
        for part in range(parts):
            share = drawn[part * world.num_processes + world.process_index :: parts * world.num_processes]
            last = part == parts - 1
            with nullcontext() if last else world.no_sync(self.network), world.autocast():
                judged = judge(share, self.policy, self.network, self.cache, self.convention, self.settings)
                world.backward(judged.loss / parts)
            own.append(torch.stack([judged.loss.detach(), judged.accuracy]))
        loss, accuracy = torch.as_tensor(world.reduce(torch.stack(own).mean(0), "mean")).tolist()
        if not math.isfinite(loss):
            raise AlignError(
                f"the loss is {loss} at step {self.done + 1}; take a smaller learning rate or beta, and go on from the "
                "last checkpoint in another folder"
            )
        world.clip_grad_norm_(list(self.policy.trained.values()), _LONGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.rate.step()
        if self.ema:
            self.ema.step(self.policy.trained.values())
        return loss, accuracy

    def final(self) -> Policy:
        """The policy with the weights to be kept."""
        if self.ema:
            self.ema.copy_to(self.policy.trained.values())
        return self.policy

    def _save(self) -> None:
        state = {
            "settings": self.told,
            "step": self.done,
            "trained": self.policy.state(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self.rate.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }
        progress.save(self.folder, state)

    def _resume(self) -> int:
        state = progress.load(self.folder, self.told)
        if state is None:
            return 0
        self.policy.load(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rate.load_state_dict(state["rate"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return int(state["step"])


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

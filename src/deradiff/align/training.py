"""The steps of a training: their random numbers depend on the step's index alone, a checkpoint holds the rest."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel

from deradiff.align import checkpoint
from deradiff.align.batch import PairSample, compute_loss, sample_batch
from deradiff.align.cache import Cache
from deradiff.align.convention import get_convention
from deradiff.align.pairs import Pairs
from deradiff.align.policy import Policy
from deradiff.align.settings import Settings
from deradiff.errors import AlignError

_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Step:
    """A completed step: number from 1, loss, share of pairs whose chosen image the policy prefers, learning rate."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float


class Training:
    """A training that starts anew, or resumes from its folder's checkpoint.

    Attributes:
        convention: of beta.
        done: number of completed steps.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        cache: Cache,
        policy: Policy,
        pairs: Pairs,
        folder: Path,
        settings: Settings,
        record: dict[str, Any],
    ) -> None:
        self.accelerator, self.cache, self.policy, self.settings = accelerator, cache, policy, settings
        self.pairs, self.folder, self.record = pairs, folder, record
        self.convention = get_convention(settings.convention, cache.pipe.scheduler)
        parameters = list(policy.trained.values())
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0, betas=(0.9, 0.99))
        self.lr_scheduler = get_cosine_schedule_with_warmup(optimizer, settings.steps // 15, settings.steps)
        self.ema = EMAModel(parameters, decay=settings.ema) if settings.ema else None
        self.network, self.optimizer = accelerator.prepare(policy.denoiser, optimizer)
        self.done = self._resume()

    def steps(self, save_every: int) -> Iterator[Step]:
        """Take the remaining steps; Ctrl-C raises KeyboardInterrupt once the current step is completed and saved."""
        log = checkpoint.Log(self.folder, self.done) if self.accelerator.is_main_process else None
        shape = self.cache.inputs(self.pairs.pairs[0].prompt).shape
        self.network.train()
        with checkpoint.defer_interrupt() as interrupted:
            while self.done < self.settings.steps:
                learning_rate = float(self.lr_scheduler.get_last_lr()[0])
                samples = sample_batch(self.pairs.pairs, shape, self.cache.pipe.scheduler, self.settings, self.done)
                loss, accuracy = self._step(samples)
                self.done += 1
                step = Step(self.done, loss, accuracy, learning_rate)
                if log:
                    log.add(**vars(step))
                    if self.done % save_every == 0 or self.done == self.settings.steps or interrupted():
                        self._save()
                yield step
                if interrupted():
                    raise KeyboardInterrupt

    def _step(self, samples: list[PairSample]) -> tuple[float, float]:
        torch.manual_seed(self.settings.seed + self.done)  # for networks with dropout
        world, parts, results = self.accelerator, self.settings.gradient_accumulation_steps, list[torch.Tensor]()
        for part in range(parts):
            share = samples[part * world.num_processes + world.process_index :: parts * world.num_processes]
            last = part == parts - 1
            with nullcontext() if last else world.no_sync(self.network), world.autocast():
                batch = compute_loss(share, self.policy, self.network, self.cache, self.convention, self.settings)
                world.backward(batch.loss / parts)
            results.append(torch.stack([batch.loss.detach(), batch.accuracy]))
        loss, accuracy = torch.as_tensor(world.reduce(torch.stack(results).mean(0), "mean")).tolist()
        if not math.isfinite(loss):
            raise AlignError(
                f"the loss is {loss} at step {self.done + 1}; take a smaller learning rate or beta, and go on from the "
                "last checkpoint in another folder"
            )
        world.clip_grad_norm_(list(self.policy.trained.values()), _MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.lr_scheduler.step()
        if self.ema:
            self.ema.step(self.policy.trained.values())
        return loss, accuracy

    def final(self) -> Policy:
        """The policy with its final weights: the moving average, if there is one."""
        if self.ema:
            self.ema.copy_to(self.policy.trained.values())
        return self.policy

    def _save(self) -> None:
        state = {
            "settings": self.record,
            "step": self.done,
            "trained": self.policy.state(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self.lr_scheduler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
        }
        checkpoint.save_torch(self.folder / checkpoint.CHECKPOINT, state)

    def _resume(self) -> int:
        state = checkpoint.load_checkpoint(self.folder, self.record)
        if state is None:
            return 0
        self.policy.load(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["rate"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return int(state["step"])

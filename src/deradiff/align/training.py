"""The steps of a training: what each draws depends on its number alone, and a checkpoint holds the rest."""

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

from deradiff.align import progress
from deradiff.align.batch import Drawn, draw, judge
from deradiff.align.cache import Cache
from deradiff.align.convention import convention
from deradiff.align.pairs import Pairs
from deradiff.align.policy import Policy
from deradiff.align.settings import Settings
from deradiff.errors import AlignError

_LONGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Step:
    """A step that was taken: its number from 1, loss, share of pairs whose chosen image the policy favours, rate."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float


class Training:
    """A training that begins, or goes on from its folder's checkpoint.

    Attributes:
        convention: of beta.
        done: steps taken so far.
    """

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
        """Take the steps that are left; Ctrl-C is raised after the step in hand, which is saved."""
        log = progress.Log(self.folder, self.done) if self.accelerator.is_main_process else None
        shape = self.cache.condition(self.pairs.pairs[0].prompt).shape
        self.network.train()
        with progress.stoppable() as stopped:
            while self.done < self.settings.steps:
                rate = float(self.rate.get_last_lr()[0])
                drawn = draw(self.pairs.pairs, shape, self.cache.pipe.scheduler, self.settings, self.done)
                loss, accuracy = self._step(drawn)
                self.done += 1
                step = Step(self.done, loss, accuracy, rate)
                if log:
                    log.add(**vars(step))
                    if self.done % save_every == 0 or self.done == self.settings.steps or stopped():
                        self._save()
                yield step
                if stopped():
                    raise KeyboardInterrupt

    def _step(self, drawn: list[Drawn]) -> tuple[float, float]:
        torch.manual_seed(self.settings.seed + self.done)  # of dropout, where a network has it
        world, parts, own = self.accelerator, self.settings.gradient_accumulation_steps, list[torch.Tensor]()
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

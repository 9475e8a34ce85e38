"""The distilled bake: a LoRA trained so that one network call matches the realigned prediction.

The student regresses on what its :class:`~deradiff.bake.teacher.Teacher` predicts on realigned trajectories. A small
loss doesn't imply near images: errors of one sign add up over the steps, others cancel. So whether training came nearer
is decided by what a bake is measured by, the final latents, on prompts that were never trained on, and only a gain
beyond noise counts.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from pydantic import Field, model_validator
from torch import Tensor, nn

from deradiff.acceleration.cells import single
from deradiff.analysis.statistics import Interval, mean_interval
from deradiff.anchor.inputs import DenoiserInputs
from deradiff.bake.sampling import relative_errors
from deradiff.bake.student import Student, attach_student
from deradiff.bake.teacher import RecordedCall, Teacher, batch_of
from deradiff.bake.weights import LoraUpdate
from deradiff.errors import BakeError
from deradiff.realignment.lams import LamLike
from deradiff.runs.recipe import Recipe
from deradiff.validation import ValidatedModel

_MAX_GRADIENT_NORM = 1.0
_EPOCHS = 3  # over one set of trajectories
_WARM_UP = 20  # iterations
_AVERAGED = 0.95  # decay of the average of the weights, which the bake is made of
_HELD_OUT = 16  # images that decide
_HELD_OUT_SHARE = 5  # of so many prompts one isn't trained on
_ROUNDING = 1e-5  # relative: smaller gains are float32's rounding along a trajectory, though all images may agree
_LEVEL = 0.9  # of the two-sided interval whose lower limit decides: a risk of 5%


class Distillation(ValidatedModel):
    """Settings of a distillation.

    Attributes:
        seconds: how long it may take, trajectories and decision included; None for as long as the iterations take.
        iterations: steps of the optimizer; None for as many as the seconds allow.
        rank: of the LoRA's layers.
        learning_rate: peak of AdamW's where the weights bake is as far off as the reference; a nearer start is changed
            by as much less. Cosine decay over the time or the iterations.
        fold_guidance: learn the guided prediction, so that the bake is sampled with classifier-free guidance off.
        seed: of noise, order and initial weights.

    Raises:
        ConfigError: names each setting that is wrong, what was given and what is expected.
    """

    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    iterations: int | None = Field(default=None, ge=1)
    rank: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    fold_guidance: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _check_length(self) -> "Distillation":
        if (self.seconds is None) == (self.iterations is None):
            raise ValueError("give either seconds or iterations")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class DistillationResult:
    """A distillation and the held-out images that decided on it.

    Attributes:
        trained: the LoRA that training ended with.
        start: the weights bake that it began as.
        before: relative errors of final latents of ``start`` on held-out images, ``[P]``.
        after: likewise of ``trained``, from the same noise.
        iterations: steps of the optimizer.
    """

    trained: LoraUpdate
    start: LoraUpdate
    before: Tensor
    after: Tensor
    iterations: int

    @property
    def gain(self) -> Interval:
        """By how much the mean error fell, paired by image; the lower limit has a risk of 5%."""
        gains = (self.before - self.after).double().nan_to_num(nan=-math.inf)
        if not bool(torch.isfinite(gains).all()):  # latents that aren't finite
            return Interval(mean=-math.inf, low=-math.inf, high=math.inf)
        return mean_interval(gains[:, None].numpy(), level=_LEVEL)

    @property
    def is_nearer(self) -> bool:
        """Whether training came nearer to the realigned pipeline, beyond noise."""
        return self.gain.low > _ROUNDING

    @property
    def update(self) -> LoraUpdate:
        """The nearer one of both; ``start`` where that isn't shown."""
        return self.trained if self.is_nearer else self.start

    def sentence(self) -> str:
        """What decided, in words."""
        taken = "nearer than the weights" if self.is_nearer else "not shown to be nearer than the weights"
        return (
            f"{self.iterations} steps of the optimizer: {taken} on {len(self.before)} held-out images (mean error "
            f"{float(self.after.mean()):.2%} after {float(self.before.mean()):.2%})"
        )


def distil(
    pipe: Any,
    aligned: Any,
    lam: LamLike,
    start: LoraUpdate,
    prompts: Sequence[str],
    settings: Distillation,
    recipe: Recipe,
    guidance: float | None = None,
    advance: Callable[[float, float], object] = lambda share, loss: None,
) -> DistillationResult:
    """Train a LoRA that stands for the realigned denoiser, from the weights bake on; the pipe is left as it was.

    One of five prompts, 16 at most, is held out to decide; where there are fewer than five, only the noise is.

    Args:
        pipe: the reference pipeline.
        aligned: the anchor, or several, as :func:`deradiff.realign` takes them.
        lam: one lam an anchor.
        start: the weights bake, which names the layers and the denoiser.
        prompts: texts to sample trajectories of.
        settings: of the training.
        recipe: gives steps, size and batch size of the trajectories.
        guidance: classifier-free guidance scale of the trajectories; None keeps the pipeline's default.
        advance: receives the share of the work that is done, in [0, 1], and the loss.

    Raises:
        BakeError: no prompt, no layer to train, guidance that can't be folded in, latents or a loss that aren't finite.
    """
    if not prompts or not start.layers:
        raise BakeError(f"got {len(prompts)} prompts and {len(start.layers)} layers; expected at least one of each")
    clock = _Clock(settings)
    teacher = Teacher(
        pipe=pipe, aligned=aligned, lam=lam, component=start.component, recipe=recipe, guidance=guidance,
        folds_guidance=settings.fold_guidance,
    )  # fmt: skip
    texts = list(dict.fromkeys(prompts))
    count = min(_HELD_OUT, len(texts) // _HELD_OUT_SHARE)
    held_out = batch_of(texts[:count] or texts, _HELD_OUT, 0, settings.seed, "decide")
    target = teacher.final_latents(held_out)
    with attach_student(pipe, start, settings.rank, settings.seed) as student:

        def errors() -> Tensor:
            with student.active():
                return relative_errors(teacher.student_latents(held_out), target)

        begun = time.monotonic()
        before = errors()
        clock.reserved = time.monotonic() - begun  # for the same once more, after training
        _train(teacher, student, texts[count:], settings, clock, advance)
        after = errors()
        trained = LoraUpdate(component=start.component, layers=student.factors())
    return DistillationResult(trained=trained, start=start, before=before, after=after, iterations=clock.iterations)


def _train(
    teacher: Teacher,
    student: Student,
    prompts: Sequence[str],
    settings: Distillation,
    clock: "_Clock",
    advance: Callable[[float, float], object],
) -> None:
    """Train on one batch of trajectories after another; the student ends as the average of its last weights."""
    parameters, peak = student.parameters, 0.0
    average = EMAModel(parameters, decay=_AVERAGED)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0, betas=(0.9, 0.99))
    for number in itertools.count(1):
        if clock.is_over():
            break
        batch = batch_of(prompts, teacher.recipe.batch_size, number, settings.seed, "train")
        calls = teacher.record(batch)
        if number == 1:
            peak = settings.learning_rate * _distance(student, calls)
        for recorded in _shuffled(calls, settings.seed + number):
            if clock.is_over():
                break
            rate = peak * 0.5 * (1 + math.cos(math.pi * clock.share)) * min(1, (clock.iterations + 1) / _WARM_UP)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _step(student, recorded, optimizer)
            average.step(parameters)
            clock.iterations += 1
            advance(clock.share, loss)
    average.copy_to(parameters)


def _step(student: Student, recorded: RecordedCall, optimizer: torch.optim.Optimizer) -> float:
    """One step of the optimizer; returns the loss before it."""
    with student.active(), torch.enable_grad():
        loss = _loss(student.denoiser, recorded)
        loss.backward()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise BakeError(f"the loss is {value}; take a smaller learning rate")
    nn.utils.clip_grad_norm_(student.parameters, _MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return value


def _loss(denoiser: nn.Module, recorded: RecordedCall) -> Tensor:
    output = single(DenoiserInputs(denoiser, recorded.inputs.args, recorded.inputs.kwargs).run())
    return recorded.weight * (output.float() - recorded.target.float()).square().mean()


@torch.no_grad()
def _distance(student: Student, calls: Sequence[RecordedCall]) -> float:
    """How far the student's predictions are off, as a share of the reference's; at most 1."""
    reference = sum(float(_loss(student.denoiser, recorded)) for recorded in calls)
    with student.active():
        distilled = sum(float(_loss(student.denoiser, recorded)) for recorded in calls)
    return min(math.sqrt(distilled / reference), 1.0) if reference else 1.0


def _shuffled(calls: Sequence[RecordedCall], seed: int) -> Iterator[RecordedCall]:
    """All calls in random order, once an epoch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_EPOCHS):
        for index in torch.randperm(len(calls), generator=generator).tolist():
            yield calls[index]


class _Clock:
    """How much of the seconds or iterations has gone, as a share of what training has of them."""

    def __init__(self, settings: Distillation) -> None:
        self.settings, self.begun, self.iterations, self.reserved = settings, time.monotonic(), 0, 0.0

    def is_over(self) -> bool:
        return self.share >= 1

    @property
    def share(self) -> float:
        if self.settings.iterations is not None:
            return self.iterations / self.settings.iterations
        assert self.settings.seconds is not None
        available = self.settings.seconds - self.reserved
        return min((time.monotonic() - self.begun) / available, 1.0) if available > 0 else 1.0

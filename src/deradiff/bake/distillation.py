"""The distilled bake: a LoRA trained so that one network call matches the realigned prediction.

Trajectories are the realigned chain's own (on-policy, as in progressive distillation, arXiv 2202.00512, of the target
rather than of the sampler): each call of the denoiser is kept with its mixture, and the student regresses on it. The
error of a prediction is weighted by what it does to the end of its step. A DDIM step from level t to level s ends at
``alpha_s x_0 + sigma_s eps``; an error in v moves that by ``alpha_s sigma_t - sigma_s alpha_t`` times itself (the sine
of the step's angle, where alpha² + sigma² = 1), whichever form the network predicts.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from pydantic import Field, model_validator
from torch import Tensor, nn

from deradiff.acceleration.cells import single
from deradiff.anchor.adapters import adapter_layers, peft_metadata, remove_adapter, unchanged_otherwise
from deradiff.anchor.inputs import DenoiserInputs, map_tensors
from deradiff.anchor.module_tree import plain_name
from deradiff.bake.low_rank import LowRank
from deradiff.bake.weights import LoraUpdate
from deradiff.errors import BakeError
from deradiff.noise import noise_levels, prediction_type
from deradiff.predict import convert_difference
from deradiff.realignment import realign
from deradiff.realignment.intercept import intercept, owner_of
from deradiff.realignment.lams import LamLike
from deradiff.runs.models import call
from deradiff.runs.recipe import Recipe
from deradiff.sampling import noise_seed
from deradiff.validation import ValidatedModel

_NAME = "deradiff_student"
_MAX_GRADIENT_NORM = 1.0


class Distillation(ValidatedModel):
    """Settings of a distillation.

    Attributes:
        seconds: how long it may take, trajectories included; None for as many iterations as are given.
        iterations: steps of the optimizer; None for as many as the seconds allow.
        rank: of the LoRA's layers.
        learning_rate: peak of AdamW's; cosine decay over the time or the iterations.
        seed: of noise, order and initial weights.

    Raises:
        ConfigError: names each setting that is wrong, what was given and what is expected.
    """

    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    iterations: int | None = Field(default=None, ge=1)
    rank: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    seed: int = 0

    @model_validator(mode="after")
    def _check_length(self) -> "Distillation":
        if (self.seconds is None) == (self.iterations is None):
            raise ValueError("give either seconds or iterations")
        return self


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One call of the denoiser on the realigned chain: its inputs, the mixture, and the weight of its eps error."""

    inputs: DenoiserInputs
    mixture: Tensor
    weight: float


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
) -> LoraUpdate:
    """Train a LoRA that stands for the realigned denoiser, from the weights bake on; the pipe is left as it was.

    Where training doesn't come nearer on a batch of trajectories that it never sees, ``start`` is returned.

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
        BakeError: no prompt, no layer to train, or a loss that isn't finite.
    """
    if not prompts or not start.layers:
        raise BakeError(f"got {len(prompts)} prompts and {len(start.layers)} layers; expected at least one of each")
    clock = _Clock(settings)
    rounds = itertools.count(1)
    with _student(pipe, start, settings) as (denoiser, parameters):
        with _switched(denoiser, on=False):
            held_out = _batch(prompts, recipe.batch_size, 0, settings.seed)
            unseen = _record(pipe, aligned, lam, start.component, held_out, recipe, guidance)
        with _switched(denoiser, on=True):
            before = _mean_loss(denoiser, unseen)
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0, betas=(0.9, 0.99))
        while not clock.is_over():
            with _switched(denoiser, on=False):
                batch = _batch(prompts, recipe.batch_size, next(rounds), settings.seed)
                calls = _record(pipe, aligned, lam, start.component, batch, recipe, guidance)
            with _switched(denoiser, on=True):
                for loss in _epochs(denoiser, calls, optimizer, parameters, settings, clock):
                    if not math.isfinite(loss):
                        raise BakeError(f"the loss is {loss}; take a smaller learning rate")
                    advance(clock.share, loss)
        with _switched(denoiser, on=True):
            if _mean_loss(denoiser, unseen) >= before:
                return start
        return LoraUpdate(component=start.component, layers=_factors(denoiser))


def _loss(denoiser: nn.Module, recorded: RecordedCall) -> Tensor:
    output = single(DenoiserInputs(denoiser, recorded.inputs.args, recorded.inputs.kwargs).run())
    return recorded.weight * (output.float() - recorded.mixture.float()).square().mean()


@torch.no_grad()
def _mean_loss(denoiser: nn.Module, calls: Sequence[RecordedCall]) -> float:
    return float(torch.stack([_loss(denoiser, recorded) for recorded in calls]).mean())


class _Clock:
    """How much of the seconds or iterations has gone."""

    def __init__(self, settings: Distillation) -> None:
        self.settings, self.begun, self.iterations = settings, time.monotonic(), 0

    @property
    def share(self) -> float:
        if self.settings.iterations is not None:
            return self.iterations / self.settings.iterations
        assert self.settings.seconds is not None
        return min((time.monotonic() - self.begun) / self.settings.seconds, 1.0)

    def is_over(self) -> bool:
        return self.share >= 1


_EPOCHS = 3  # over one set of trajectories


def _epochs(
    denoiser: nn.Module,
    calls: list[RecordedCall],
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    settings: Distillation,
    clock: _Clock,
) -> Iterator[float]:
    """Train on recorded calls in random order; gives each step's loss."""
    generator = torch.Generator().manual_seed(settings.seed + clock.iterations)
    for _ in range(_EPOCHS):
        for index in torch.randperm(len(calls), generator=generator).tolist():
            if clock.is_over():
                return
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * clock.share))
            with torch.enable_grad():
                loss = _loss(denoiser, calls[index])
                loss.backward()
            nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
            optimizer.step()
            optimizer.zero_grad()
            clock.iterations += 1
            yield float(loss.detach())


def _batch(prompts: Sequence[str], size: int, number: int, seed: int) -> list[tuple[str, int]]:
    """Prompts of one batch of trajectories, each with the seed of its noise; no two batches share noise."""
    indices = range(number * size, (number + 1) * size)
    texts = [prompts[index % len(prompts)] for index in indices]
    return [(text, noise_seed(f"{text}\n{index}\ndistil", seed)) for text, index in zip(texts, indices, strict=True)]


@torch.no_grad()
def _record(
    pipe: Any,
    aligned: Any,
    lam: LamLike,
    component: str,
    batch: list[tuple[str, int]],
    recipe: Recipe,
    guidance: float | None,
) -> list[RecordedCall]:
    """The denoiser's calls on one batch of trajectories of the realigned chain."""
    kept: list[tuple[DenoiserInputs, Tensor]] = []

    def keep(run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = run(*args, **kwargs)
        inputs = map_tensors([list(args), kwargs], Tensor.clone)
        kept.append((DenoiserInputs(run, tuple(inputs[0]), inputs[1]), single(output).clone()))
        return output

    with realign(pipe, aligned, lam, component=component):
        denoiser = pipe.components[component]
        undo = intercept(denoiser, keep, owner_of(denoiser))
        try:
            generators = [torch.Generator().manual_seed(seed) for _, seed in batch]
            call(pipe, recipe, [text for text, _ in batch], generators, guidance, output_type="latent")
        finally:
            undo()
    weights = _step_weights(pipe.scheduler, len(kept))
    return [RecordedCall(inputs, mixture, weight) for (inputs, mixture), weight in zip(kept, weights, strict=True)]


def _step_weights(scheduler: Any, calls: int) -> list[float]:
    """The weight of the squared error of each call's prediction, of mean 1: the squared change of the step's end.

    Samplers that call the network several times a step have a level a call, so there is one weight a call.
    """
    levels, form = noise_levels(scheduler), prediction_type(scheduler)
    start, end = levels[:-1], levels[1:]
    in_v = convert_difference(torch.ones_like(start.alpha), start, form, "v_prediction")
    change = (end.alpha * start.sigma - end.sigma * start.alpha) / (start.alpha.square() + start.sigma.square()) * in_v
    weights = change.square()
    if len(weights) != calls:  # a call a branch of guidance
        if calls % len(weights):
            raise BakeError(
                f"{type(scheduler).__name__} calls the denoiser {calls} times in {len(weights)} steps, so which step a "
                "call belongs to isn't known; bake the weights, or give another --scheduler"
            )
        weights = weights.repeat_interleave(calls // len(weights))
    return (weights / weights.mean()).tolist()


@contextmanager
def _student(pipe: Any, start: LoraUpdate, settings: Distillation) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """The denoiser with a trainable LoRA that begins as the weights bake; taken off again at the end."""
    denoiser: Any = pipe.components[start.component]
    before = peft_metadata(denoiser)
    rank = {name: max(settings.rank, layer.rank) for name, layer in start.layers.items()}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank,
        target_modules=list(rank),
        rank_pattern=rank,
        alpha_pattern=dict(rank),
    )
    with unchanged_otherwise(denoiser):
        denoiser.requires_grad_(False)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)  # PEFT initialises a LoRA from the global generator
                denoiser.add_adapter(config, adapter_name=_NAME)
            parameters: list[nn.Parameter] = []
            with torch.no_grad():
                for name, layer in _layers(denoiser):
                    # trained in float32, whatever the network's dtype
                    down, up = layer.lora_A[_NAME].float().weight, layer.lora_B[_NAME].float().weight
                    if known := start.layers.get(name):  # PEFT may take another layer whose name ends so, from zero
                        down[: known.rank], up[:, : known.rank] = known.down.to(down), known.up.to(up)
                    parameters += [down.requires_grad_(True), up.requires_grad_(True)]
            yield denoiser, parameters
        finally:
            remove_adapter(denoiser, _NAME, before)


@contextmanager
def _switched(denoiser: nn.Module, *, on: bool) -> Iterator[None]:
    """Inside the block the student's LoRA is on or off."""
    layers = [(layer, layer._active_adapter, layer._disable_adapters) for layer in adapter_layers(denoiser, _NAME)]
    try:
        for layer, active, _ in layers:
            names = [active] if isinstance(active, str) else list(active)
            kept = [name for name in names if name != _NAME] + [_NAME] * on
            layer._active_adapter, layer._disable_adapters = kept, not kept
        yield
    finally:
        for layer, active, disabled in layers:
            layer._active_adapter, layer._disable_adapters = active, disabled


def _layers(denoiser: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in denoiser.named_modules():
        if _NAME in getattr(module, "lora_A", {}):
            yield plain_name(name), module


@torch.no_grad()
def _factors(denoiser: nn.Module) -> dict[str, LowRank]:
    factors = {name: (layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight) for name, layer in _layers(denoiser)}
    return {name: LowRank(down.cpu().clone(), up.cpu().clone()) for name, (down, up) in factors.items()}

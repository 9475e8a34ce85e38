"""The realigned pipeline as a teacher: the calls of the denoiser on its own trajectories, with what to predict there.

The trajectories are on-policy, as in progressive distillation (arXiv 2202.00512), of the target rather than of the
sampler. A student that is called as often as the teacher learns the mixture of each call.

With guidance folded in (Meng et al. 2023, "On Distillation of Guided Diffusion Models", arXiv 2210.03142, stage one, at
one guidance scale) the student is called once an image and step and learns what the teacher's pipeline hands to its
scheduler: the guided mixture. Its inputs are recorded by running the pipeline again from the same noise with guidance
off, its denoiser answering with the guided mixtures: that walks the guided trajectory once more, and whatever the
pipeline passes to its denoiser without guidance is what a user's pipeline will pass to the bake.

The error of a prediction is weighted by what it does to the end of its step. A DDIM step from level t to level s ends
at ``alpha_s x_0 + sigma_s eps``; an error in v moves that by ``alpha_s sigma_t - sigma_s alpha_t`` times itself (the
sine of the step's angle, where alpha² + sigma² = 1), whichever form the network predicts.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deradiff.acceleration.cells import single
from deradiff.anchor.inputs import DenoiserInputs, map_tensors
from deradiff.bake.sampling import check_finite, sample
from deradiff.errors import BakeError
from deradiff.noise import noise_levels, prediction_type
from deradiff.predict import convert_difference
from deradiff.realignment import realign
from deradiff.realignment.intercept import Interceptor, intercept, owner_of
from deradiff.realignment.lams import LamLike
from deradiff.runs.recipe import Recipe
from deradiff.sampling import Step, around_step, noise_seed

GUIDANCE_OFF = 1.0  # classifier-free guidance at this scale is the conditional prediction alone

Batch = list[tuple[str, int]]  # prompts, each with the seed of its noise


@dataclass(frozen=True, eq=False)
class RecordedCall:
    """One call that a student will make: its inputs, what to predict, and the weight of the prediction's error."""

    inputs: DenoiserInputs
    target: Tensor
    weight: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A pipeline that is realigned while it teaches.

    Attributes:
        pipe: the reference pipeline.
        aligned: the anchor, or several, as :func:`deradiff.realign` takes them.
        lam: one lam an anchor.
        component: the denoiser.
        recipe: gives steps, size and batch size.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        folds_guidance: whether the student replaces guidance too.
    """

    pipe: Any
    aligned: Any
    lam: LamLike
    component: str
    recipe: Recipe
    guidance: float | None
    folds_guidance: bool = False

    def __post_init__(self) -> None:
        if self.folds_guidance and (self.guidance is None or self.guidance <= GUIDANCE_OFF):
            raise BakeError(f"guidance is {self.guidance}; to fold guidance in, give a scale above 1, such as 7.5")

    @property
    def student_guidance(self) -> float | None:
        """The guidance scale at which the student is sampled."""
        return GUIDANCE_OFF if self.folds_guidance else self.guidance

    @torch.no_grad()
    def final_latents(self, batch: Batch) -> Tensor:
        """Of the realigned pipeline, ``[P, ...]``, float32 on the CPU.

        Raises:
            BakeError: they aren't finite.
        """
        with realign(self.pipe, self.aligned, self.lam, component=self.component):
            return check_finite(self._sample(batch, self.guidance), self.lam)

    @torch.no_grad()
    def student_latents(self, batch: Batch) -> Tensor:
        """Of the pipeline as it is now, with a student active, ``[P, ...]``."""
        return self._sample(batch, self.student_guidance)

    @torch.no_grad()
    def record(self, batch: Batch) -> list[RecordedCall]:
        """The calls that a student would make on these trajectories.

        Raises:
            BakeError: which step a call belongs to can't be known, or guidance can't be folded in.
        """
        calls: list[tuple[DenoiserInputs, Any]] = []
        predictions: list[Tensor] = []

        def keep_call(run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            output = run(*args, **kwargs)
            calls.append((_copied(run, args, kwargs), map_tensors(output, Tensor.clone)))
            return output

        def keep_prediction(step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            predictions.append((args[0] if args else kwargs["model_output"]).clone())
            return step(*args, **kwargs)

        with (
            realign(self.pipe, self.aligned, self.lam, component=self.component),
            self._intercepted(keep_call),
            around_step(self.pipe.scheduler, keep_prediction),
        ):
            latents = self._sample(batch, self.guidance)
        if self.folds_guidance:
            calls = self._without_guidance(batch, calls, predictions, latents)
        weights = step_weights(self.pipe.scheduler, len(calls))
        return [
            RecordedCall(inputs, single(output), weight)
            for (inputs, output), weight in zip(calls, weights, strict=True)
        ]

    def _without_guidance(
        self, batch: Batch, calls: list[tuple[DenoiserInputs, Any]], predictions: list[Tensor], latents: Tensor
    ) -> list[tuple[DenoiserInputs, Any]]:
        """One call a step and image on the trajectories of guided calls, each with the guided prediction.

        Raises:
            BakeError: the calls had no guidance, or one network call can't take their place.
        """
        name, needed = type(self.pipe).__name__, len(predictions) * len(batch)
        if sum(inputs.rows for inputs, _ in calls) <= needed:
            raise BakeError(
                f"{name} calls its denoiser once an image and step at guidance {self.guidance:g}: it has no "
                "classifier-free guidance to fold in"
            )
        structure = calls[-1][1]
        if not predictions or predictions[0].shape[1:] != single(structure).shape[1:]:
            raise BakeError(
                f"what {name} hands to its scheduler isn't of the shape of its denoiser's output, so guidance can't be "
                "folded in"
            )
        answers, replayed = iter(predictions), list[tuple[DenoiserInputs, Any]]()

        def answer(run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            inputs, prediction = _copied(run, args, kwargs), next(answers, None)
            if prediction is None or inputs.rows != len(prediction):
                raise BakeError(f"{name} calls its denoiser more than once an image and step with guidance off")
            replayed.append((inputs, prediction))
            return map_tensors(structure, lambda _: prediction.clone())

        with self._intercepted(answer):
            again = self._sample(batch, GUIDANCE_OFF)
        if len(replayed) != len(predictions) or not torch.allclose(again, latents, rtol=1e-2, atol=1e-2):
            raise BakeError(
                f"{name} with guidance off doesn't hand its denoiser's output to its scheduler as it is, so guidance "
                "can't be folded in"
            )
        return replayed

    def _sample(self, batch: Batch, guidance: float | None) -> Tensor:
        texts, seeds = [text for text, _ in batch], [seed for _, seed in batch]
        return sample(self.pipe, self.recipe, texts, seeds, guidance, output_type="latent")[0]

    @contextmanager
    def _intercepted(self, interceptor: Interceptor) -> Generator[None]:
        denoiser = self.pipe.components[self.component]
        undo = intercept(denoiser, interceptor, owner_of(denoiser))
        try:
            yield
        finally:
            undo()


def batch_of(prompts: Sequence[str], size: int, number: int, seed: int, purpose: str) -> Batch:
    """Prompts of one batch of trajectories, each with the seed of its noise; no two batches share noise.

    Args:
        prompts: taken in turn.
        size: of this batch and of all others of its purpose.
        number: of the batch.
        seed: of all noise.
        purpose: batches of different purposes share no noise either.
    """
    indices = range(number * size, (number + 1) * size)
    texts = [prompts[index % len(prompts)] for index in indices]
    return [(text, noise_seed(f"{text}\n{index}\n{purpose}", seed)) for text, index in zip(texts, indices, strict=True)]


def step_weights(scheduler: Any, calls: int) -> list[float]:
    """The weight of the squared error of each call's prediction, of mean 1: the squared change of the step's end.

    Samplers that call the network several times a step have a level a call, so there is one weight a call.

    Raises:
        BakeError: which step a call belongs to isn't known.
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


def _copied(run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> DenoiserInputs:
    inputs = map_tensors([list(args), kwargs], Tensor.clone)
    return DenoiserInputs(run, tuple(inputs[0]), inputs[1])

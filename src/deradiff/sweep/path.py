"""Path KL of realigned images to the reference, recorded while they are sampled.

Needs the difference of the two *guided* predictions, so it is known where guidance stacks [uncond, cond] in one batch
or is off, and not where a pipeline calls its denoiser once a branch.
"""

from typing import Any

import torch
from torch import Tensor

from deradiff.divergence import q_increment, step_kl
from deradiff.errors import ScheduleError
from deradiff.noise import NoiseLevel, is_stochastic, lowest_noise, noise_at, noise_levels, prediction_type
from deradiff.predict import convert_difference
from deradiff.realignment import Step


class PathKL:
    """Observer that sums each image's KL over the steps of one batch.

    On ancestral samplers it sums the exact KL of the steps' kernels; on deterministic ones the integral
    ½ lam² ∫ ||Δeps||² d rho, which the KL of the stochastic sampler tends to.
    """

    def __init__(self, pipe: Any, images: int) -> None:
        self.pipe, self.images = pipe, images
        self._sum: Tensor | None = torch.zeros(images, dtype=torch.float64)
        self._last: tuple[float, int | None] | None = None

    def __call__(self, step: Step) -> None:
        """Add one call of the denoiser."""
        place = (float(torch.as_tensor(step.timestep).flatten()[0]), getattr(self.pipe.scheduler, "step_index", None))
        if place == self._last:  # one call a branch of guidance: neither alone is the guided difference
            self._sum = None
        self._last = place
        if self._sum is None:
            return
        difference = self._guided_difference(step)
        try:
            self._sum = None if difference is None else self._sum + self._increment(step, difference).cpu()
        except ScheduleError:
            self._sum = None

    def values(self) -> list[float | None]:
        """Nats per image; None where the pipeline or its scheduler doesn't let them be known."""
        return [None] * self.images if self._sum is None else self._sum.tolist()

    def _guided_difference(self, step: Step) -> Tensor | None:
        reference, aligned = (_tensor(step.predictions[index]) for index in (0, 1))
        if reference is None or aligned is None or len(step.lams) > 1:
            return None
        difference = aligned.double() - reference.double()
        if len(difference) == self.images:
            return difference
        if len(difference) == 2 * self.images and getattr(self.pipe, "do_classifier_free_guidance", False):
            unconditional, conditional = difference.chunk(2)
            return unconditional + self.pipe.guidance_scale * (conditional - unconditional)
        return None

    def _increment(self, step: Step, difference: Tensor) -> Tensor:
        """Of the steps for which the difference, as one of eps, stands."""
        scheduler, lam = self.pipe.scheduler, step.lams[0]
        lam = lam[: self.images].double() if isinstance(lam, Tensor) else lam
        start = noise_at(scheduler, torch.as_tensor(step.timestep).flatten()[0])
        levels, floor = noise_levels(scheduler), lowest_noise(scheduler)
        source, total = prediction_type(scheduler), torch.zeros(self.images, dtype=torch.float64)
        difference = convert_difference(difference, start, source, "epsilon")
        before, later = start, levels[levels.log_snr > start.log_snr + 1e-9]
        for place in range(step.span):
            after = later[place] if place < len(later.sigma) and later.sigma[place] > 0 else floor
            if after.log_snr > before.log_snr:
                total += self._kl(difference, before, after, lam)
            before = after
        return total

    def _kl(self, difference: Tensor, before: NoiseLevel, after: NoiseLevel, lam: float | Tensor) -> Tensor:
        if is_stochastic(self.pipe.scheduler):
            clean = convert_difference(difference, before, "epsilon", "sample")
            return step_kl(clean, before, after, lam).cpu()
        return (0.5 * lam**2 * q_increment(difference, before, after)).cpu()


def _tensor(prediction: Any) -> Tensor | None:
    value = prediction if isinstance(prediction, Tensor) else prediction[0]
    return value if isinstance(value, Tensor) and value.ndim > 1 else None

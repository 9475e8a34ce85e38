"""The loss of one batch of pairs. Its random numbers depend on seed and step alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from deradiff.align.cache import Cache
from deradiff.align.captured_inputs import call_denoiser
from deradiff.align.convention import Convention
from deradiff.align.loss import NoisedBatch, add_noise, dpo_loss, implicit_margin, ipo_loss, sample_timesteps
from deradiff.align.pairs import Pair
from deradiff.align.policy import Policy
from deradiff.align.settings import Settings

LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


@dataclass(frozen=True)
class PairSample:
    """A pair with the timesteps ``[noise_samples]`` and noise ``[noise_samples, ...]`` of its errors."""

    pair: Pair
    timesteps: Tensor
    eps: Tensor


def make_generator(*key: int) -> torch.Generator:
    """The generator of a key such as (seed, step), so that no random state passes from one step to the next."""
    return torch.Generator().manual_seed(int.from_bytes(sha256(repr(key).encode()).digest()[:7], "big"))


def sample_batch(
    pairs: Sequence[Pair], shape: tuple[int, ...], scheduler: Any, settings: Settings, step: int
) -> list[PairSample]:
    """The pairs of a step, with timesteps and noise: independent of earlier steps and of the number of processes.

    Args:
        pairs: all pairs.
        shape: of one latent.
        scheduler: the pipeline's.
        settings: seed, batch size and number of noise samples.
        step: index of the step, from 0.
    """
    generator = make_generator(settings.seed, step)
    indices = torch.randint(len(pairs), (settings.train_batch_size,), generator=generator).tolist()
    return [
        PairSample(
            pairs[index],
            sample_timesteps(scheduler, settings.noise_samples, generator),
            torch.randn(settings.noise_samples, *shape, generator=generator),
        )
        for index in indices
    ]


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch, and the share of pairs whose chosen image the policy prefers: scalars."""

    loss: Tensor
    accuracy: Tensor


def compute_loss(
    samples: Sequence[PairSample],
    policy: Policy,
    network: Any,
    cache: Cache,
    convention: Convention,
    settings: Settings,
) -> BatchLoss:
    """The loss of N pairs.

    Args:
        samples: N pairs with timesteps and noise.
        policy: provides the reference.
        network: the policy's network, perhaps wrapped by accelerate.
        cache: latents and denoiser inputs.
        convention: of beta.
        settings: beta, loss and label smoothing.
    """
    device = next(iter(policy.trained.values())).device
    batch = _noise_batch(samples, cache, device)
    inputs = [cache.inputs(sample.pair.prompt) for sample in samples]

    def errors(model: Any) -> Tensor:  # [2, N], mean over noise samples
        each = batch.squared_errors(lambda x_t, t: call_denoiser(model, inputs, x_t, t))
        return each.view(len(samples), 2, -1).mean(2).T

    with policy.reference() as reference:
        reference_errors = errors(reference)
    margin = implicit_margin(errors(network), reference_errors)
    log_ratio = -convention.multiplier(samples[0].eps[0].numel()) * margin
    probability = torch.tensor([sample.pair.probability for sample in samples], device=device)
    loss = LOSSES[settings.loss](
        log_ratio, beta=settings.beta, probability=probability, label_smoothing=settings.label_smoothing
    )
    return BatchLoss(loss, (log_ratio.detach() > 0).float().mean())


def _noise_batch(samples: Sequence[PairSample], cache: Cache, device: torch.device) -> NoisedBatch:
    """Rows pair by pair, the chosen image before the rejected one, both with the same timesteps and noise."""
    noise_samples = len(samples[0].timesteps)
    keys = [key for sample in samples for key in (sample.pair.chosen, sample.pair.rejected)]
    latents = torch.stack([cache.latent(key) for key in keys]).repeat_interleave(noise_samples, 0)
    eps = torch.cat([sample.eps for sample in samples for _ in range(2)])
    timesteps = torch.cat([sample.timesteps for sample in samples for _ in range(2)])
    batch = add_noise(cache.pipe.scheduler, latents, eps, timesteps)
    return NoisedBatch(batch.x_t.to(device), batch.timestep.to(device), batch.target.to(device))

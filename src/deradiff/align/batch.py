"""The loss of one batch of pairs, whose draws depend on seed and step alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from deradiff.align.cache import Cache
from deradiff.align.conditions import call
from deradiff.align.convention import Convention
from deradiff.align.loss import dpo_loss, drift, ipo_loss
from deradiff.align.noising import Noised, noised, random_times
from deradiff.align.pairs import Pair
from deradiff.align.policy import Policy
from deradiff.align.settings import Settings

LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


@dataclass(frozen=True)
class Drawn:
    """A pair with the times (draws,) and noises (draws, ...) at which it is judged."""

    pair: Pair
    times: Tensor
    eps: Tensor


def generator_of(*place: int) -> torch.Generator:
    """Of a place in training, such as (seed, step): nothing is carried from one step to the next."""
    return torch.Generator().manual_seed(int.from_bytes(sha256(repr(place).encode()).digest()[:7], "big"))


def draw(pairs: Sequence[Pair], shape: tuple[int, ...], scheduler: Any, settings: Settings, step: int) -> list[Drawn]:
    """The pairs of a step with their draws; the same whatever came before, and however many processes share them."""
    generator = generator_of(settings.seed, step)
    chosen = torch.randint(len(pairs), (settings.train_batch_size,), generator=generator).tolist()
    return [
        Drawn(
            pairs[place],
            random_times(scheduler, settings.draws, generator),
            torch.randn(settings.draws, *shape, generator=generator),
        )
        for place in chosen
    ]


@dataclass(frozen=True)
class Judged:
    """What a batch says: its loss, and the share of pairs whose chosen image the policy favours."""

    loss: Tensor
    accuracy: Tensor


def judge(
    drawn: Sequence[Drawn], policy: Policy, network: Any, cache: Cache, convention: Convention, settings: Settings
) -> Judged:
    """The loss of some pairs.

    Args:
        drawn: N pairs.
        policy: gives the reference.
        network: the policy as it is to be called, wrapped or not.
        cache: latents and conditions.
        convention: of beta.
        settings: beta, loss, label smoothing.
    """
    scheduler = cache.pipe.scheduler
    device = next(iter(policy.trained.values())).device
    made = _noised(drawn, cache, scheduler, device)
    conditions = [cache.condition(one.pair.prompt) for one in drawn]

    def errors(model: Any) -> Tensor:  # (2, N), averaged over draws
        each = made.errors(lambda x_t, t: call(model, conditions, x_t, t))
        return each.view(len(drawn), 2, -1).mean(2).T

    with policy.reference() as reference:
        before = errors(reference)
    log_ratio = -convention.multiplier(drawn[0].eps[0].numel()) * drift(errors(network), before)
    probability = torch.tensor([one.pair.probability for one in drawn], device=device)
    loss = LOSSES[settings.loss](
        log_ratio, beta=settings.beta, probability=probability, label_smoothing=settings.label_smoothing
    )
    return Judged(loss, (log_ratio.detach() > 0).float().mean())


def _noised(drawn: Sequence[Drawn], cache: Cache, scheduler: Any, device: torch.device) -> Noised:
    """Rows pair by pair, chosen before rejected, both at the same times with the same noise."""
    draws = len(drawn[0].times)
    latents = torch.stack([cache.latent(key) for one in drawn for key in (one.pair.chosen, one.pair.rejected)])
    eps = torch.cat([one.eps for one in drawn for _ in range(2)])
    times = torch.cat([one.times for one in drawn for _ in range(2)])
    made = noised(scheduler, latents.repeat_interleave(draws, 0), eps, times)
    return Noised(made.x_t.to(device), made.timestep.to(device), made.truth.to(device))

"""The noise level of a timestep, read from a diffusers scheduler.

Notation, here and in `predict`, `mixture` and `divergence`:

    x_0, eps, x_t    clean latent, noise eps ~ N(0, I), and noised latent x_t = alpha_t x_0 + sigma_t eps
    alpha, sigma     scales of signal and noise at a timestep t; alpha_bar = alpha² in diffusers' tables
    SNR, rho         signal-to-noise ratio alpha² / sigma², and its logarithm
    lam, beta        mixing weight of the aligned model; KL strength

The mathematics needs (alpha_t, sigma_t) of a schedule and nothing else. Schedulers store it in three ways, which duck
typing distinguishes (diffusers is not imported):

- A training table ``alphas_cumprod`` of alpha² with ``alpha² + sigma² = 1``: DDPM, DDIM, PNDM, LCM, TCD, ...;
  Würstchen has a function of continuous time instead of a table.
- Inference ``sigmas`` that are ratios ``sigma_t / alpha_t``: Euler, Heun, KDPM2, DPM++, UniPC, ... The sample of some
  of these is ``x_t / alpha_t``, but the network's input is ``x_t``.
- Inference ``sigmas`` of a rectified flow, ``alpha = 1 - sigma``: FlowMatch..., or ``use_flow_sigmas``.

Unsupported, with a ScheduleError: schedulers that precondition the network themselves (``sigma_data``: EDM, consistency
models, SCM), and schedulers that run from data to noise (inversion, ``invert_sigmas``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deradiff.compat import scheduler_traits
from deradiff.errors import ScheduleError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")


@dataclass(frozen=True, eq=False)
class NoiseLevel:
    """Signal and noise scales of ``x_t = alpha x_0 + sigma eps``: tensors of one shape."""

    alpha: Tensor
    sigma: Tensor

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha² / sigma², in [0, inf]."""
        return (self.alpha / self.sigma).square()

    @property
    def log_snr(self) -> Tensor:
        """``rho = log(alpha² / sigma²)``: ``inf`` where sigma is 0, ``-inf`` where alpha is 0."""
        return 2 * (self.alpha.log() - self.sigma.log())

    def __getitem__(self, index: Any) -> "NoiseLevel":
        return NoiseLevel(self.alpha[index], self.sigma[index])


def append_dims(values: Tensor, like: Tensor) -> Tensor:
    """Append dimensions of size 1 to ``values`` so that it broadcasts from the left over ``like``; on its device.

    Args:
        values: ``[]`` or ``[batch, ...]``, with no more dimensions than ``like``.
        like: ``[batch, ...]``.
    """
    return values.to(like.device).reshape((*values.shape, *[1] * (like.ndim - values.ndim)))


def is_flow(scheduler: Any) -> bool:
    """Whether the noise levels are those of a rectified flow (``alpha = 1 - sigma``).

    Raises:
        ScheduleError: they are neither a flow's nor variance preserving.
    """
    if (traits := scheduler_traits(scheduler)).noise_levels is not None:
        return traits.flow
    if _option(scheduler, "sigma_data") is not None:
        raise _unreadable(scheduler, "it preconditions the network itself (sigma_data, the EDM family)")
    if hasattr(scheduler, "alphas_cumprod") or _is_continuous(scheduler):
        return bool(_option(scheduler, "use_flow_sigmas"))
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None or float(sigmas.max()) > 1 + 1e-6 or _option(scheduler, "invert_sigmas"):
        raise _unreadable(scheduler, "it has neither `alphas_cumprod` nor flow `sigmas` that fall from 1 to 0")
    return True


def is_stochastic(scheduler: Any) -> bool:
    """Whether steps draw noise: DDPM, ancestral, SDE and consistency samplers.

    DDIM counts as deterministic, which is its default: ``eta`` is an argument of the step, not of the scheduler.
    """
    sde = str(_option(scheduler, "algorithm_type") or "").startswith("sde")
    return scheduler_traits(scheduler).draws_noise or sde or bool(_option(scheduler, "stochastic_sampling"))


def renoises(scheduler: Any) -> bool:
    """Whether steps add new noise to the predicted x_0 and discard x_t (LCM, stochastic flow matching)."""
    return scheduler_traits(scheduler).renoises or bool(_option(scheduler, "stochastic_sampling"))


def prediction_type(scheduler: Any) -> str:
    """The network's prediction form: "epsilon", "v_prediction", "sample" or "flow_prediction" (``eps - x_0``).

    Raises:
        ScheduleError: the scheduler names another form, or its schedule can't be read.
    """
    default = "flow_prediction" if is_flow(scheduler) else "epsilon"
    form = str(_option(scheduler, "prediction_type") or default)
    form = {"original_sample": "sample"}.get(form, form)
    if form not in PREDICTION_TYPES:
        raise _unreadable(scheduler, f"its prediction_type is {form!r}, not one of {', '.join(PREDICTION_TYPES)}")
    return form


def noise_levels(scheduler: Any) -> NoiseLevel:
    """The levels at the N timesteps of ``set_timesteps``, and the level that the last step reaches.

    Returns:
        Two float64 tensors ``[N + 1]`` on the CPU. Entry k is the level of the network's input at timestep k.
        Schedulers that call the network twice a step (Heun, KDPM2, PNDM) repeat levels or visit half-way ones.

    Raises:
        ScheduleError: no timesteps are set, or the schedule can't be read.
    """
    if (registered := scheduler_traits(scheduler).noise_levels) is not None:
        return registered(scheduler)
    timesteps, flow = _timesteps(scheduler), is_flow(scheduler)
    levels = (
        _levels_from_sigmas(scheduler, len(timesteps), flow)
        if hasattr(scheduler, "sigmas")
        else _levels_from_table(scheduler)
    )
    if levels.sigma[-1] > levels.sigma[0]:
        raise _unreadable(scheduler, "its noise increases along the run; a sampler's decreases")
    return levels


def noise_at(scheduler: Any, timestep: Tensor | float) -> NoiseLevel:
    """The level of a timestep as the pipeline passes it to the network.

    The scheduler's current step is tried first (rounded timesteps can repeat), then the nearest inference timestep,
    then training time. A match allows for the rounding of the timestep's dtype and, for flows, for the scales that
    pipelines use: t, t / N and, at the current step only, 1 - t / N, with N training steps.

    Args:
        scheduler: a diffusers scheduler after ``set_timesteps``.
        timestep: a number or a tensor of any shape.

    Returns:
        Levels of the timestep's shape, in float64 on the CPU.

    Raises:
        ScheduleError: as `noise_levels`.
    """
    timesteps = torch.as_tensor(timestep)
    tolerance = max(4 * torch.finfo(timesteps.dtype).eps if timesteps.is_floating_point() else 0.0, 1e-6)
    flat = [float(t) for t in timesteps.cpu().double().flatten()]
    levels = noise_levels(scheduler)
    by_timestep = {t: _find_level(scheduler, levels, t, tolerance) for t in set(flat)}
    alpha, sigma = (torch.stack([getattr(by_timestep[t], scale) for t in flat]) for scale in ("alpha", "sigma"))
    return NoiseLevel(alpha.reshape(timesteps.shape), sigma.reshape(timesteps.shape))


def _find_level(scheduler: Any, levels: NoiseLevel, timestep: float, tolerance: float) -> NoiseLevel:
    flow, steps, n = is_flow(scheduler), _timesteps(scheduler).double(), _train_steps(scheduler)
    candidates = [timestep, timestep * n] if flow else [timestep]

    def matches(candidate: float, scale: float = 1.0) -> Tensor:
        return (steps - candidate).abs() <= tolerance * max(abs(candidate), scale)

    begin: int = getattr(scheduler, "begin_index", None) or 0
    index: int | None = getattr(scheduler, "step_index", None)
    current = begin if index is None else index
    if current < len(steps):
        reversed_time = flow and bool(matches(n - timestep * n, scale=n)[current])
        if reversed_time or any(matches(candidate)[current] for candidate in candidates):
            return levels[current]
    for candidate in candidates:
        if matches(candidate).any():
            return levels[(steps - candidate).abs().argmin()]
    return training_level(scheduler, torch.tensor(candidates[-1] if timestep <= 1 else timestep))


def training_level(scheduler: Any, timesteps: Tensor) -> NoiseLevel:
    """The levels of training timesteps: linear for flows, interpolated linearly in alpha² for tables.

    Args:
        scheduler: a diffusers scheduler; ``set_timesteps`` need not have been called.
        timesteps: any shape, from 0 (no noise, for flows) to the number of training steps.

    Returns:
        Levels of the timesteps' shape, in float64 on the CPU.

    Raises:
        ScheduleError: the schedule can't be read.
    """
    timesteps = timesteps.double()
    if _is_continuous(scheduler):
        return _level_from_alpha_bar(scheduler._alpha_cumprod(timesteps, timesteps.device).reshape(timesteps.shape))
    if is_flow(scheduler):
        sigma = timesteps / _train_steps(scheduler)
        return NoiseLevel(1 - sigma, sigma)
    table: Tensor = scheduler.alphas_cumprod.cpu().double()
    timesteps = timesteps.clamp(0, len(table) - 1)
    low, high = timesteps.floor().long(), timesteps.ceil().long()
    return _level_from_alpha_bar(torch.lerp(table[low], table[high], timesteps - low))


def _levels_from_table(scheduler: Any) -> NoiseLevel:
    visited = training_level(scheduler, _timesteps(scheduler))
    if _is_continuous(scheduler):  # Würstchen lists all N + 1 timesteps
        return visited
    return _level_from_alpha_bar(torch.cat([visited.alpha.square(), _final_alpha_bar(scheduler).reshape(1)]))


def _levels_from_sigmas(scheduler: Any, n: int, flow: bool) -> NoiseLevel:
    sigmas: Tensor = scheduler.sigmas.cpu().double()[: n + 1].clone()
    if hasattr(scheduler, "sigmas_interpol"):  # KDPM2 calls half-way at odd k; KDPM2-ancestral stores these at k - 1
        odd = torch.arange(1, n, 2)
        stored = odd - 1 if hasattr(scheduler, "sigmas_up") else odd
        sigmas[odd] = scheduler.sigmas_interpol.cpu().double()[stored]
    if flow:
        return NoiseLevel((1 - sigmas).clamp(min=0), sigmas)
    alpha = (1 + sigmas.square()).rsqrt()
    return NoiseLevel(alpha, sigmas * alpha)


def _final_alpha_bar(scheduler: Any) -> Tensor:
    """alpha² after the last step along a table: one stride further, clean (LCM) or the first entry (TCD)."""
    ends_at, clean = scheduler_traits(scheduler).ends_at, torch.ones((), dtype=torch.float64)
    if ends_at == "clean":
        return clean
    table: Tensor = scheduler.alphas_cumprod.cpu().double()
    if ends_at == "first":
        return table[0]
    if not _has_custom_timesteps(scheduler):
        last = int(scheduler.timesteps[-1]) - _train_steps(scheduler) // scheduler.num_inference_steps
        if last >= 0:
            return table[last]
    return torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", clean)).cpu().double()


def _level_from_alpha_bar(alpha_bar: Tensor) -> NoiseLevel:
    alpha_bar = alpha_bar.double()
    return NoiseLevel(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


def _timesteps(scheduler: Any) -> Tensor:
    timesteps: Tensor | None = getattr(scheduler, "timesteps", None)
    is_set = getattr(scheduler, "num_inference_steps", None) is not None or _has_custom_timesteps(scheduler)
    if timesteps is None or not (is_set or _is_continuous(scheduler)):
        raise ScheduleError(f"{type(scheduler).__name__} has no timesteps: call set_timesteps(n) first.")
    return timesteps.cpu()


def _has_custom_timesteps(scheduler: Any) -> bool:
    return bool(getattr(scheduler, "custom_timesteps", False))


def _is_continuous(scheduler: Any) -> bool:
    return hasattr(scheduler, "_alpha_cumprod")


def _train_steps(scheduler: Any) -> int:
    return int(_option(scheduler, "num_train_timesteps") or 1000)


def _option(scheduler: Any, name: str) -> Any:
    return getattr(getattr(scheduler, "config", None), name, None)


def _unreadable(scheduler: Any, reason: str) -> ScheduleError:
    return ScheduleError(
        f"The noise schedule of {type(scheduler).__name__} can't be read: {reason}. "
        "Mixing predictions needs no schedule, path statistics do: use another scheduler for these."
    )

"""The schedulers of diffusers under which noise levels must be right, each with its timesteps set."""

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import diffusers
import torch
from torch import Tensor

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_TERMINAL = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
# 10 divides 1000: with other counts table schedulers step elsewhere than to their next timestep
STEPS = 10


def build(name: str, **options: Any) -> Any:
    """A scheduler or pipeline of diffusers by its name."""
    return getattr(diffusers, name)(**options)


def _set(name: str, steps: int = STEPS, mu: float | None = None, **options: Any) -> Any:
    scheduler = build(name, **options)
    scheduler.set_timesteps(steps, **({} if mu is None else {"mu": mu}))
    return scheduler


def _variance_preserving(name: str, steps: int = STEPS, **options: Any) -> Callable[[], Any]:
    return partial(_set, name, steps, **{**STABLE_DIFFUSION, **options})


def _custom_ddpm() -> Any:
    scheduler = build("DDPMScheduler", **STABLE_DIFFUSION, clip_sample=False)
    scheduler.set_timesteps(timesteps=[900, 700, 500, 300])
    return scheduler


def _catalogue(*entries: tuple[str, Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    return dict(entries)


DETERMINISTIC = _catalogue(
    ("DDIM", _variance_preserving("DDIMScheduler", clip_sample=False)),
    ("DDIM offset", _variance_preserving("DDIMScheduler", clip_sample=False, set_alpha_to_one=False, steps_offset=1)),
    ("DDIM zero terminal", _variance_preserving("DDIMScheduler", clip_sample=False, **ZERO_TERMINAL)),
    ("DDIM sample", _variance_preserving("DDIMScheduler", clip_sample=False, prediction_type="sample")),
    ("CogVideoX", _variance_preserving("CogVideoXDDIMScheduler", prediction_type="v_prediction")),
    ("PNDM", _variance_preserving("PNDMScheduler")),
    ("PNDM skip", _variance_preserving("PNDMScheduler", skip_prk_steps=True, steps_offset=1)),
    ("LMS", _variance_preserving("LMSDiscreteScheduler")),
    ("Euler", _variance_preserving("EulerDiscreteScheduler")),
    ("Euler Karras", _variance_preserving("EulerDiscreteScheduler", use_karras_sigmas=True)),
    ("Euler v", _variance_preserving("EulerDiscreteScheduler", prediction_type="v_prediction")),
    ("Euler zero terminal", _variance_preserving("EulerDiscreteScheduler", **ZERO_TERMINAL)),
    ("Heun", _variance_preserving("HeunDiscreteScheduler")),
    ("Heun Karras", _variance_preserving("HeunDiscreteScheduler", use_karras_sigmas=True)),
    ("KDPM2", _variance_preserving("KDPM2DiscreteScheduler")),
    ("DPM++", _variance_preserving("DPMSolverMultistepScheduler")),
    ("DPM++ Karras", _variance_preserving("DPMSolverMultistepScheduler", use_karras_sigmas=True)),
    ("DPM++ Lu", _variance_preserving("DPMSolverMultistepScheduler", use_lu_lambdas=True)),
    ("DPM++ flow", _variance_preserving("DPMSolverMultistepScheduler", **FLOW, flow_shift=3.0)),
    ("DPM++ single", _variance_preserving("DPMSolverSinglestepScheduler")),
    ("DPM++ single Karras", _variance_preserving("DPMSolverSinglestepScheduler", use_karras_sigmas=True)),
    ("UniPC", _variance_preserving("UniPCMultistepScheduler")),
    ("UniPC Karras", _variance_preserving("UniPCMultistepScheduler", use_karras_sigmas=True)),
    ("UniPC flow", _variance_preserving("UniPCMultistepScheduler", **FLOW, flow_shift=3.0)),
    ("DEIS", _variance_preserving("DEISMultistepScheduler")),
    ("flow Euler", partial(_set, "FlowMatchEulerDiscreteScheduler")),
    ("flow Euler shift", partial(_set, "FlowMatchEulerDiscreteScheduler", shift=3.0)),
    ("flow Euler mu", partial(_set, "FlowMatchEulerDiscreteScheduler", mu=0.8, use_dynamic_shifting=True)),
    ("flow Heun", partial(_set, "FlowMatchHeunDiscreteScheduler", shift=3.0)),
)
STOCHASTIC = _catalogue(
    ("DDPM", _variance_preserving("DDPMScheduler", clip_sample=False)),
    ("DDPM v trailing", _variance_preserving("DDPMScheduler", clip_sample=False, **ZERO_TERMINAL)),
    ("DDPM custom", _custom_ddpm),
    ("Euler ancestral", _variance_preserving("EulerAncestralDiscreteScheduler")),
    ("KDPM2 ancestral", _variance_preserving("KDPM2AncestralDiscreteScheduler")),
    ("DPM++ SDE", _variance_preserving("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++")),
    ("LCM", _variance_preserving("LCMScheduler", steps=4)),
    ("TCD", _variance_preserving("TCDScheduler", steps=4)),
    ("SA", _variance_preserving("SASolverScheduler")),
    ("unCLIP", partial(_set, "UnCLIPScheduler", clip_sample=False)),
    ("Würstchen", partial(_set, "DDPMWuerstchenScheduler")),
    ("flow Euler stochastic", partial(_set, "FlowMatchEulerDiscreteScheduler", stochastic_sampling=True)),
    ("flow LCM", partial(_set, "FlowMatchLCMScheduler")),
)
EVERY = {**DETERMINISTIC, **STOCHASTIC}


@cache
def _once(name: str) -> Any:
    return EVERY[name]()


def fresh(name: str) -> Any:
    """A scheduler of the catalogue, its timesteps set and no step taken."""
    return copy.deepcopy(_once(name))


def network_input(scheduler: Any, sample: Tensor, timestep: Tensor) -> Tensor:
    """What a pipeline gives its network: the sample, rescaled by the schedulers that keep it as x_t / alpha_t."""
    scale = getattr(scheduler, "scale_model_input", None)
    return sample if scale is None else scale(sample, timestep)


def keeps_ratio(scheduler: Any) -> bool:
    """Whether samples are ``x_t / alpha_t``: ``init_noise_sigma`` is then the largest ratio, not 1."""
    return float(getattr(scheduler, "init_noise_sigma", 1.0)) != 1.0


def timesteps_of(scheduler: Any) -> Tensor:
    """The timesteps at which the network is called (Würstchen lists one more)."""
    return scheduler.timesteps[:-1] if hasattr(scheduler, "_alpha_cumprod") else scheduler.timesteps


def add_noise(scheduler: Any, sample: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """The scheduler's own noising of a batch at one timestep of shape (1,)."""
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(sample, timestep, noise)
    return scheduler.add_noise(sample, noise, timestep)


def step(scheduler: Any, prediction: Tensor, timestep: Tensor, sample: Tensor, **options: Any) -> Tensor:
    """One step as the pipeline of this scheduler calls it."""
    if hasattr(scheduler, "_alpha_cumprod"):
        timestep = timestep.expand(len(sample))
    if type(scheduler).__name__ == "UnCLIPScheduler" and timestep > 0:
        options["prev_timestep"] = scheduler.timesteps[scheduler.timesteps < timestep][0]
    return scheduler.step(prediction, timestep, sample, **options).prev_sample


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)

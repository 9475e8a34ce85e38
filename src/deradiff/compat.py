"""What is known of diffusers' classes by name, looked up along a class's ``__mro__``: a subclass counts as its parent.

No library is imported here. ``tests/test_compat.py`` walks the installed diffusers, and fails where a pipeline or a
scheduler isn't covered.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

logger = logging.getLogger("deradiff")

# The components that pipelines call at every step.
DENOISERS = (
    "unet",
    "transformer",
    "transformer_2",
    "prior",
    "prior_prior",
    "decoder",
    "unconditional_transformer",
    "image_unet",
    "text_unet",
    "super_res_first",
    "super_res_last",
)
# Pipelines that call another component at every step (name it with ``component=``), or none.
WITHOUT_DENOISER = (
    "DiffusionGemmaPipeline",
    "FluxPriorReduxPipeline",
    "LLaDA2Pipeline",
    "LTX2LatentUpsamplePipeline",
    "LTX2VideoDiffusionDecodePipeline",
    "LTXLatentUpsamplePipeline",
)
# Pipelines in whose batches a row is a view, a frame, an ensemble member or a packed sequence, and not an image.
ROWS_ARE_NOT_IMAGES = (
    "StableDiffusionPanorama",
    "TextToVideoZero",
    "Marigold",
    "CycleDiffusion",
    "Cosmos3",
    "MiniMaxH3",
)
# Pipelines that give all images of a call the same pictures to start from.
SHARE_PICTURES = ("Flux2", "QwenImageEditPlus", "OmniGen")
# Attributes in which attention processors keep what they saw, for a later step or for a gradient.
ATTENTION_STORES = ("attention_store", "attnstore", "attention_probs")
# Denoisers whose layers ComfyUI knows under kohya's names, each with the prefix of these names.
KOHYA_PREFIXES = {
    "UNet2DConditionModel": "lora_unet_",
    "FluxTransformer2DModel": "lora_transformer_",
    "SD3Transformer2DModel": "lora_transformer_",
}
LAYERWISE_CASTING = "LayerwiseCastingHook"  # the class of diffusers' hook that casts weights for each layer's call
HOOK_REGISTRY = "_diffusers_hook"  # where diffusers keeps a module's hooks

Posterior = Callable[[Mapping[str, Any], float], bool]


def is_kind(instance: object, prefixes: tuple[str, ...]) -> bool:
    """Whether the name of an object's class, or of one that it inherits from, begins with one of some texts."""
    return any(base.__name__.startswith(prefixes) for base in type(instance).__mro__)


def kohya_prefix(denoiser: object) -> str | None:
    """The prefix of the names that kohya's layout gives a denoiser's layers; None where it has no names for them."""
    names = (base.__name__ for base in type(denoiser).__mro__)
    return next((KOHYA_PREFIXES[name] for name in names if name in KOHYA_PREFIXES), None)


def _never(config: Mapping[str, Any], eta: float) -> bool:
    return False


def _always(config: Mapping[str, Any], eta: float) -> bool:
    return True


def _of_ddpm(config: Mapping[str, Any], eta: float) -> bool:
    return str(config.get("variance_type")).startswith("fixed_small")


def _of_ddim(config: Mapping[str, Any], eta: float) -> bool:
    return eta == 1


def _of_first_order_sde(config: Mapping[str, Any], eta: float) -> bool:
    return str(config.get("algorithm_type")).startswith("sde") and config.get("solver_order") == 1


@dataclass(frozen=True, kw_only=True)
class SchedulerTraits:
    """What a scheduler's class says of its steps.

    Attributes:
        draws_noise: whether steps draw noise, whatever the config; ``algorithm_type="sde-..."`` and
            ``stochastic_sampling`` are read off it besides.
        seeds_itself: whether noise is drawn from a source of the scheduler's own, for a whole batch, and not from the
            generators that a pipeline is given.
        renoises: whether steps put new noise on the predicted x_0, and keep nothing of x_t.
        draws_posterior: of the config and eta, whether a step draws x_s from q(x_s | x_t, x_0) at the predicted x_0.
        ends_at: alpha² after the last step along a training table: ``"clean"`` 1, ``"first"`` the table's first entry;
            None as most do it, by stride.
        noise_levels: of a scheduler with its timesteps set, its N + 1 levels; None reads them off it.
        flow: whether such levels are a rectified flow's.
    """

    draws_noise: bool = False
    seeds_itself: bool = False
    renoises: bool = False
    draws_posterior: Posterior = _never
    ends_at: Literal["clean", "first"] | None = None
    noise_levels: Callable[[Any], Any] | None = None
    flow: bool = False


_PLAIN, _NOISY = SchedulerTraits(), SchedulerTraits(draws_noise=True)
_SELF_SEEDED = SchedulerTraits(draws_noise=True, seeds_itself=True)
_SCHEDULERS: dict[str, SchedulerTraits] = {
    "CogVideoXDDIMScheduler": _PLAIN,
    "CogVideoXDPMScheduler": _NOISY,
    "CosineDPMSolverMultistepScheduler": _SELF_SEEDED,
    "DDIMInverseScheduler": _PLAIN,
    "DDIMParallelScheduler": SchedulerTraits(draws_posterior=_of_ddim),
    "DDIMScheduler": SchedulerTraits(draws_posterior=_of_ddim),
    "DDPMParallelScheduler": SchedulerTraits(draws_noise=True, draws_posterior=_of_ddpm),
    "DDPMScheduler": SchedulerTraits(draws_noise=True, draws_posterior=_of_ddpm),
    "DDPMWuerstchenScheduler": _NOISY,
    "DEISMultistepScheduler": _PLAIN,
    "DPMSolverMultistepInverseScheduler": _PLAIN,
    "DPMSolverMultistepScheduler": SchedulerTraits(draws_posterior=_of_first_order_sde),
    "DPMSolverSDEScheduler": _SELF_SEEDED,
    "DPMSolverSinglestepScheduler": _PLAIN,
    "EDMDPMSolverMultistepScheduler": _PLAIN,
    "EDMEulerScheduler": _PLAIN,
    "EulerAncestralDiscreteScheduler": SchedulerTraits(draws_noise=True, draws_posterior=_always),
    "EulerDiscreteScheduler": _PLAIN,
    "FlowMapEulerDiscreteScheduler": _PLAIN,
    "FlowMatchEulerDiscreteScheduler": _PLAIN,
    "FlowMatchHeunDiscreteScheduler": _PLAIN,
    "FlowMatchLCMScheduler": SchedulerTraits(draws_noise=True, renoises=True),
    "HeliosDMDScheduler": _PLAIN,
    "HeliosScheduler": _PLAIN,
    "HeunDiscreteScheduler": _PLAIN,
    "IPNDMScheduler": _PLAIN,
    "KDPM2AncestralDiscreteScheduler": _NOISY,
    "KDPM2DiscreteScheduler": _PLAIN,
    "KarrasVeScheduler": _NOISY,
    "LCMScheduler": SchedulerTraits(draws_noise=True, renoises=True, ends_at="clean"),
    "LMSDiscreteScheduler": _PLAIN,
    "LTXEulerAncestralRFScheduler": _NOISY,
    "MiniMaxH3Scheduler": _PLAIN,
    "PNDMScheduler": _PLAIN,
    "PiflowScheduler": _PLAIN,
    "RePaintScheduler": _NOISY,
    "SASolverScheduler": _NOISY,
    "SCMScheduler": _NOISY,
    "ScoreSdeVeScheduler": _NOISY,
    "ScoreSdeVpScheduler": _NOISY,
    "CMStochasticIterativeScheduler": _NOISY,
    "ConsistencyDecoderScheduler": _NOISY,
    "TCDScheduler": SchedulerTraits(draws_noise=True, ends_at="first"),
    "UnCLIPScheduler": _NOISY,
    "UniPCMultistepScheduler": _PLAIN,
}
# Schedulers of tokens or structures, along which predictions of latents can't be mixed.
_NOT_OF_LATENTS = (
    "AmusedScheduler",
    "BlockRefinementScheduler",
    "DiscreteDDIMScheduler",
    "EntropyBoundScheduler",
    "RFD4ProteinaScheduler",
    "VQDiffusionScheduler",
)
_warned: set[str] = set()


def known_schedulers() -> set[str]:
    """Names of all classes that are known."""
    return {*_SCHEDULERS, *_NOT_OF_LATENTS}


def scheduler_traits(scheduler: object) -> SchedulerTraits:
    """What is known of a scheduler's class; an unknown one counts as deterministic, with a warning."""
    return traits_of(type(scheduler))


def traits_of(scheduler: type) -> SchedulerTraits:
    """As :func:`scheduler_traits`, of a class."""
    for base in scheduler.__mro__:
        if base.__name__ in _SCHEDULERS:
            return _SCHEDULERS[base.__name__]
    name = scheduler.__name__
    if name not in _warned:
        _warned.add(name)
        logger.warning(
            "%s is not a scheduler that deradiff knows, so its steps are taken to draw no noise; say what they do with "
            "deradiff.register_scheduler(%s, draws_noise=...)",
            name,
            name,
        )
    return _PLAIN


def register_scheduler(
    scheduler: type,
    *,
    draws_noise: bool = False,
    renoises: bool = False,
    draws_posterior: Posterior = _never,
    noise_levels: Callable[[Any], Any] | None = None,
    flow: bool = False,
) -> None:
    """Say what the steps of a scheduler that diffusers doesn't have do; subclasses count as it.

    Args:
        scheduler: its class.
        draws_noise: whether steps draw noise.
        renoises: whether steps put new noise on the predicted x_0, and keep nothing of x_t, as LCM does.
        draws_posterior: of config and eta, whether a step draws x_s from q(x_s | x_t, x_0) at the predicted x_0.
        noise_levels: of a scheduler whose N timesteps are set, its N + 1 `deradiff.noise.NoiseLevel` in float64; None
            reads them off ``alphas_cumprod`` or ``sigmas``.
        flow: whether such levels are a rectified flow's (alpha = 1 − sigma).
    """
    _SCHEDULERS[scheduler.__name__] = SchedulerTraits(
        draws_noise=draws_noise,
        renoises=renoises,
        draws_posterior=draws_posterior,
        noise_levels=noise_levels,
        flow=flow,
    )

"""Realignment of one checkpoint towards another: both are loaded, and both predict at every step."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_patcher
import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .errors import RealignError
from .lams import LamSchedule
from .mixing import mix_predictions

KEY = "deradiff_models"
ARCHITECTURE = ("context_dim", "adm_in_channels", "in_channels", "image_model")
"""What of a model's configuration decides whether another's conditioning can be given to it."""


@dataclass(frozen=True)
class ModelMixture:
    """ComfyUI's CALC_COND_BATCH wrapper: evaluates the same conditionings with every model that has weight.

    Attributes:
        schedules: one per aligned model, in the order of the patcher's additional models. Those are looked up at each
            call, since a clone of the patcher holds clones of them, and its own are the ones that are loaded.
    """

    schedules: tuple[LamSchedule, ...]

    def __call__(
        self,
        executor: Any,
        model: Any,
        conds: Sequence[Sequence[Mapping[str, Any]] | None],
        x_in: Tensor,
        timestep: Tensor,
        model_options: Mapping[str, Any],
    ) -> list[Tensor]:
        """One mixed denoised latent ``[images, ...]`` per conditioning at noise levels ``timestep``, ``[images]``."""
        _check_without_hooks(conds)
        aligned = model.current_patcher.get_additional_models_with_key(KEY)
        lams = torch.stack([schedule.at(timestep, model.model_sampling) for schedule in self.schedules])

        def predict_with(patcher: Any) -> list[Tensor]:
            return predict_as(patcher, conds, x_in, timestep, model_options)

        predict_aligned: list[Callable[[], list[Tensor]]] = [partial(predict_with, patcher) for patcher in aligned]
        return mix_predictions(lambda: executor(model, conds, x_in, timestep, model_options), predict_aligned, lams)


def predict_as(
    patcher: Any,
    conds: Sequence[Sequence[Mapping[str, Any]] | None],
    x_in: Tensor,
    timestep: Tensor,
    model_options: Mapping[str, Any],
) -> list[Tensor]:
    """What another loaded model predicts, with its own patches and wrappers, in the middle of the reference's run."""
    options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
    transformer_options = options.setdefault("transformer_options", {})
    for name, registered in (("wrappers", patcher.wrappers), ("callbacks", patcher.callbacks)):
        merged = transformer_options.setdefault(name, {})
        comfy.patcher_extension.merge_nested_dicts(merged, registered, copy_dict1=False)
    running = model_options.get("transformer_options", {})
    if "sample_sigmas" in running:
        transformer_options["sample_sigmas"] = running["sample_sigmas"]
    earlier = patcher.model.current_patcher
    patcher.model.current_patcher = patcher
    try:
        return comfy.samplers.calc_cond_batch(patcher.model, conds, x_in, timestep, options)
    finally:
        patcher.model.current_patcher = earlier


def realign_with_model(reference: Any, aligned: Any, schedule: LamSchedule) -> Any:
    """A clone of the reference's patcher that samples ``reference + lam (aligned - reference)``.

    On a patcher that is realigned towards other models, all of them are mixed against the one reference.

    Raises:
        RealignError: the models share their weights, or can't read each other's latents or conditionings.
    """
    earlier = reference.get_additional_models_with_key(KEY)
    for other in (reference, *earlier):
        if aligned.is_clone(other):
            raise RealignError(
                "The two models share the weights of one checkpoint, which can be loaded in one state alone; for a "
                "reference with a LoRA use Realign LoRA, otherwise choose another aligned model."
            )
    _check_compatible(reference, aligned)
    schedules = [
        one for wrapper in reference.get_wrappers(WrappersMP.CALC_COND_BATCH, KEY) for one in wrapper.schedules
    ]
    clone = reference.clone()
    clone.set_additional_models(KEY, [*clone.get_additional_models_with_key(KEY), aligned])
    clone.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, KEY)
    clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, ModelMixture((*schedules, schedule)))
    return clone


def _check_compatible(reference: Any, aligned: Any) -> None:
    described = [_describe_model(patcher) for patcher in (reference, aligned)]
    for name, expected in described[0].items():
        if described[1][name] != expected:
            raise RealignError(
                f"The aligned model's {name} is {described[1][name]} and the reference's {expected}; choose a model "
                "that was aligned from this reference."
            )


def _describe_model(patcher: Any) -> dict[str, Any]:
    """What must be the same in two models, by the words in which a difference is reported."""
    model, config = patcher.model, patcher.model.model_config.unet_config
    is_flow = isinstance(patcher.get_model_object("model_sampling"), comfy.model_sampling.CONST)
    return {
        "architecture": type(model).__name__,
        "latent format": type(model.latent_format).__name__,
        "noise schedule": "that of a flow" if is_flow else "that of a diffusion",
        **{name: config.get(name) for name in ARCHITECTURE},
    }


def _check_without_hooks(conds: Sequence[Sequence[Mapping[str, Any]] | None]) -> None:
    if any(cond.get("hooks") is not None for group in conds for cond in group or ()):
        raise RealignError(
            "The conditioning carries hooks, which would change the reference alone; remove the nodes that set hooks "
            "on it, or use Realign LoRA."
        )

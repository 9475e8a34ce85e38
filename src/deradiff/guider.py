"""Realignment as a guider of diffusers' Modular Pipelines: the mixture beside classifier-free guidance.

At each step the guider asks for the predictions of two models, the denoiser with the anchor's LoRA off and on, mixes
them (`deradiff.mixture`; DeRaDiff, arXiv 2601.20198), and guides by the mixtures. `deradiff.realign` does all of it
and more on a modular pipeline as well; a guider is part of the pipeline's description instead, and is saved with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diffusers.configuration_utils import register_to_config
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.guiders.guider_utils import GuiderOutput
from torch import Tensor, nn

from deradiff.anchor.adapters import adapter_names, check_not_fused, toggled
from deradiff.anchor.module_tree import ModuleTree, unwrapped
from deradiff.errors import LamError, RealignError
from deradiff.mixture import lerp
from deradiff.realignment.intercept import Call, intercept, owner_of
from deradiff.realignment.limits import check_no_attention_stores, check_no_step_cache

if TYPE_CHECKING:
    from diffusers.modular_pipelines.modular_pipeline import BlockState

_BRANCHES = ("cond", "uncond")  # in the order of diffusers' pairs of inputs


class RealignmentGuidance(ClassifierFreeGuidance):
    """Classifier-free guidance by the mixture of a reference and its anchor, a LoRA loaded on the denoiser.

    Args:
        adapter: the LoRA's name on the denoiser; it is on for the anchor's predictions, off for the reference's, and
            otherwise left as it is.
        lam: 0 is the reference, 1 the anchor, between is more regularised; one for all images.
        guidance_scale: of classifier-free guidance, as are all that follow; at 1 there is none. What ``start``,
            ``stop`` and ``enabled`` leave out is guidance, never the mixture.
        guidance_rescale: as diffusers' ``ClassifierFreeGuidance``.
        use_original_formulation: likewise.
        start: likewise.
        stop: likewise.
        enabled: likewise.

    Raises:
        LamError: a lam that isn't a finite number.
        RealignError: when it runs: a denoiser without this LoRA, with it fused, realigned otherwise, or cached.
    """

    _input_predictions = ["pred_cond", "pred_uncond", "aligned_cond", "aligned_uncond"]  # noqa: RUF012  (diffusers')

    @register_to_config
    def __init__(
        self,
        adapter: str,
        lam: float = 0.5,
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        use_original_formulation: bool = False,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        super().__init__(guidance_scale, guidance_rescale, use_original_formulation, start, stop, enabled)
        if isinstance(lam, bool) or not isinstance(lam, int | float) or not math.isfinite(lam):
            raise LamError(f"lam is {lam!r}; expected one finite number, such as 0.5")
        self.adapter, self.lam = adapter, float(lam)
        self._tree: ModuleTree | None = None
        self._restore: Callable[[], object] = lambda: None

    @property
    def _predictions(self) -> list[str]:
        """What is evaluated now: the models that have weight, each for every branch of guidance."""
        models = [name for name, weight in (("pred", 1 - self.lam), ("aligned", self.lam)) if weight]
        branches = _BRANCHES if self._is_cfg_enabled() else _BRANCHES[:1]
        return [f"{model}_{branch}" for branch in branches for model in models]

    @property
    def num_conditions(self) -> int:
        """How many predictions a step takes."""
        return len(self._predictions)

    @property
    def is_conditional(self) -> bool:
        """Whether the prediction being made is of the conditional branch."""
        return self._predictions[self._count_prepared - 1].endswith("_cond")

    def prepare_inputs(self, data: dict[str, tuple[Tensor, Tensor]]) -> list[BlockState]:
        """The denoiser's inputs for each prediction, from pairs (conditional, unconditional)."""
        return [self._prepare_batch(data, _branch(name), name) for name in self._predictions]

    def prepare_inputs_from_block_state(
        self, data: BlockState, input_fields: dict[str, str | tuple[str, str]]
    ) -> list[BlockState]:
        """The denoiser's inputs for each prediction, from names of the state's fields."""
        names = self._predictions
        return [self._prepare_batch_from_block_state(input_fields, data, _branch(name), name) for name in names]

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Turn the LoRA off or on within the calls that come; also where one raises, it is then as it was."""
        self._restore()
        super().prepare_models(denoiser)
        tree = self._checked(denoiser)
        aligned = self._predictions[self._count_prepared - 1].startswith("aligned")
        on, off = ([self.adapter], []) if aligned else ([], [self.adapter])

        def run(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            try:
                with toggled(tree, on=on, off=off):
                    return call(*args, **kwargs)
            except BaseException:
                self._restore()  # the pipeline cleans up after a call that returns, only
                raise

        self._restore = intercept(denoiser, run, self)

    def cleanup_models(self, denoiser: nn.Module) -> None:
        """Leave the denoiser as it was."""
        self._restore()

    def forward(
        self,
        pred_cond: Tensor | None = None,
        pred_uncond: Tensor | None = None,
        aligned_cond: Tensor | None = None,
        aligned_uncond: Tensor | None = None,
    ) -> GuiderOutput:
        """Guide by the mixtures; predictions ``[batch, ...]`` of models without weight are None."""
        mixed = self._mix(pred_cond, aligned_cond)
        assert mixed is not None  # the conditional branch is always there
        return super().forward(mixed, self._mix(pred_uncond, aligned_uncond))

    def _mix(self, reference: Tensor | None, aligned: Tensor | None) -> Tensor | None:
        if reference is None or aligned is None:
            return aligned if reference is None else reference
        return lerp(reference, aligned, self.lam)

    def _checked(self, denoiser: nn.Module) -> ModuleTree:
        """The denoiser's modules, looked through once a run."""
        network = unwrapped(denoiser)
        if owner_of(denoiser) or owner_of(network):
            raise RealignError(
                "the denoiser is realigned already; call handle.remove() first, or take another guider than "
                "RealignmentGuidance"
            )
        if self.adapter not in adapter_names(network):
            raise RealignError(
                f"the denoiser has no LoRA {self.adapter!r}, only {sorted(adapter_names(network))}; load it by "
                f"pipe.load_lora_weights(..., adapter_name={self.adapter!r})"
            )
        if self._tree is None or self._tree.denoiser is not network or (not self._step and self._count_prepared == 1):
            check_not_fused(network)
            self._tree = ModuleTree(network)
            check_no_step_cache("the denoiser", self._tree)
            check_no_attention_stores("the denoiser", self._tree)
        return self._tree


def _branch(prediction: str) -> int:
    return _BRANCHES.index(prediction.rpartition("_")[2])

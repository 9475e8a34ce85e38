"""The hook on one denoiser: a policy evaluates its calls, and the pipeline gets the mixture of the predictions."""

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from deradiff.acceleration import Budget, PolicyRunner
from deradiff.acceleration.cells import BatchedCall, Prediction, why_inseparable
from deradiff.acceleration.policies import active_models
from deradiff.anchor.ensembles import Interpolated, ModelEnsemble
from deradiff.anchor.inputs import DenoiserInputs
from deradiff.realignment.batch import BatchInfo, expand_to_rows
from deradiff.realignment.lams import Lams
from deradiff.realignment.limits import check_no_attention_stores, check_no_step_cache
from deradiff.realignment.mix_outputs import Lam, mix_outputs
from deradiff.realignment.variance import is_learned
from deradiff.trajectory import DenoiserCall, Observer


class DenoiserHook:
    """One realigned denoiser of a pipeline.

    Args:
        component: its name in the pipeline.
        denoiser: the network.
        ensemble: its models.
        anchors: their names.
        scheduler: gives the scheduler that steps it.
        runner: evaluates its calls.
    """

    def __init__(
        self,
        component: str,
        denoiser: nn.Module,
        ensemble: ModelEnsemble | Interpolated,
        anchors: Sequence[str],
        scheduler: Callable[[], Any],
        runner: PolicyRunner,
    ) -> None:
        self.component, self.denoiser, self.ensemble, self.anchors = component, denoiser, ensemble, list(anchors)
        self.scheduler, self.runner = scheduler, runner
        self.lams = Lams(tuple((0.0,) for _ in anchors))
        self.batch: BatchInfo | None = None  # of the pipeline's run
        self.observers: list[Observer] = []
        self.lock = threading.RLock()  # the handle's, once there is one
        self.lams_an_image, self.budget = 1, Budget(limit=sys.maxsize)  # other in sweeps

    def __call__(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The denoiser's call, realigned."""
        with self.lock:
            return self._realigned(DenoiserInputs(call, args, kwargs))

    def _realigned(self, inputs: DenoiserInputs) -> Any:
        self.ensemble.tree.refresh()
        row_lams = self._row_lams(inputs.rows)
        if not isinstance(self.ensemble, Interpolated) and (self.observers or len(active_models(row_lams)) > 1):
            check_no_step_cache(self.component, self.ensemble.tree)
            check_no_attention_stores(self.component, self.ensemble.tree)
        prediction = self.runner(self._batched(inputs, row_lams), observed=bool(self.observers))
        mixture = prediction.mixture
        if mixture is None:
            assert prediction.models is not None
            mixture = mix_outputs(inputs, prediction.models, row_lams, self.scheduler())
        self._notify(inputs, row_lams, prediction, mixture)
        return mixture

    def _row_lams(self, rows: int) -> list[Lam]:
        """For each anchor one lam, or one a row ``[rows]``."""
        return [
            values[0] if len(values) == 1 else expand_to_rows(torch.tensor(values), rows, self.batch)
            for values in self.lams.values
        ]

    def _batched(self, inputs: DenoiserInputs, row_lams: list[Lam]) -> BatchedCall:
        return BatchedCall(
            ensemble=self.ensemble,
            inputs=inputs,
            row_lams=row_lams,
            images=self._images(inputs.rows),
            lams_an_image=self.lams_an_image,
            inseparable=self._why_inseparable(inputs),
            budget=self.budget,
        )

    def _images(self, rows: int) -> int:
        """How many rows each branch of guidance has."""
        if self.batch is not None and self.batch.prompts is not None and rows % self.batch.rows == 0:
            return self.batch.rows
        return self.lams.count if self.lams.count > 1 else rows

    def _why_inseparable(self, inputs: DenoiserInputs) -> str | None:
        if isinstance(self.ensemble, Interpolated):
            return "its weights are interpolated"
        if len(self.anchors) > 1:
            return "it has several anchors"
        return "it learns its variance" if is_learned(self.scheduler()) else why_inseparable(inputs)

    def _notify(self, inputs: DenoiserInputs, lams: list[Lam], prediction: Prediction, mixture: Any) -> None:
        if not self.observers or prediction.models is None:
            return
        event = DenoiserCall(
            component=self.component,
            sample=inputs.sample,
            timestep=inputs.timestep,
            predictions=prediction.models,
            mixture=mixture,
            lams=lams,
            steps_covered=prediction.steps_covered,
            extrapolated=prediction.extrapolated,
        )
        for observer in self.observers:
            observer(event)

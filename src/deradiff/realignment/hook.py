"""The hook on one denoiser: intercepts its call, runs the models that have weight, and mixes what they predict."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deradiff.acceleration import Budget, PolicyRunner
from deradiff.acceleration.cells import BatchedCall
from deradiff.acceleration.policies import Prediction
from deradiff.anchor.ensembles import Interpolated, ModelEnsemble
from deradiff.anchor.inputs import batch_rows, sample_of
from deradiff.errors import LamError
from deradiff.realignment.lams import Lams
from deradiff.realignment.limits import check_no_attention_stores, check_no_step_cache
from deradiff.realignment.outputs import Lam, active_models, mix
from deradiff.realignment.rows import BatchInfo, expand_to_rows
from deradiff.realignment.variance import applies, learned, mix_with_variance
from deradiff.trajectory import DenoiserCall, Observer


class Hook:
    """One realigned denoiser of a pipeline."""

    def __init__(
        self,
        component: str,
        denoiser: nn.Module,
        models: ModelEnsemble | Interpolated,
        anchors: list[str],
        scheduler: Callable[[], Any],
    ) -> None:
        self.component, self.denoiser, self.models, self.anchors = component, denoiser, models, anchors
        self.scheduler = scheduler
        self.lams = Lams(tuple((0.0,) for _ in anchors))
        self.run: BatchInfo | None = None
        self.observers: list[Observer] = []
        self.runner: PolicyRunner | None = None
        self.lams_an_image = 1
        self.output: Any = None  # the last of a network, whose structure answers without a network call take
        self.budget = Budget(limit=sys.maxsize)

    def __call__(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The denoiser's call, realigned."""
        self.models.tree.refresh()
        if isinstance(self.models, Interpolated):
            return self.models.run(
                call, args, kwargs, self.lams.scalars("policy=Weights() mixes the weights of one network")
            )
        if self.runner is not None and self.runner.takes(args, kwargs, learns_variance=learned(self.scheduler())):
            return self._through(self.runner, call, args, kwargs)
        lams = self._per_row(batch_rows(args, kwargs))
        which = list(range(len(self.anchors) + 1)) if self.observers else active_models(lams)
        if len(which) > 1:
            check_no_step_cache(self.component, self.models.tree)
            check_no_attention_stores(self.component, self.models.tree)
        outputs = self.models.run(call, args, kwargs, which)
        self.budget.calls += len(which) * self._rows_a_branch(batch_rows(args, kwargs))
        if len(active_models(lams)) > 1 and self._learns_variance(args, kwargs, outputs):
            mixture = self._mix_learned(args, kwargs, outputs, lams)
        else:
            mixture = mix(outputs, lams)
        self._tell(args, kwargs, outputs, mixture, lams, Prediction(mixture=mixture))
        return mixture

    def _through(
        self, runner: PolicyRunner, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The call with its rows taken apart, so that each goes only through the networks that it needs."""
        assert not isinstance(self.models, Interpolated)
        check_no_step_cache(self.component, self.models.tree)
        check_no_attention_stores(self.component, self.models.tree)
        a_branch = self._rows_a_branch(batch_rows(args, kwargs))
        lam = self._per_row(a_branch)[0]
        cells = lam if isinstance(lam, Tensor) else torch.full((a_branch,), lam)
        calls = BatchedCall(
            models=self.models,
            call=call,
            args=args,
            kwargs=kwargs,
            lams=cells.reshape(-1, self.lams_an_image),
            budget=self.budget,
            output=self.output,
        )
        predicted = runner(calls, _timestep(args, kwargs), watched=bool(self.observers))
        self.output = calls.output
        mixture = calls.answer(predicted.mixture)
        if predicted.models is not None:
            pair = dict(enumerate(calls.answer(one) for one in predicted.models))
            self._tell(args, kwargs, pair, mixture, self._per_row(batch_rows(args, kwargs)), predicted)
        return mixture

    def _rows_a_branch(self, rows: int) -> int:
        """How many rows guidance has in each of its branches."""
        if self.run is not None and self.run.prompts is not None and rows % self.run.rows == 0:
            return self.run.rows
        return self.lams.count if self.lams.count > 1 else rows

    def _tell(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: Mapping[int, Any],
        mixture: Any,
        lams: list[Lam],
        predicted: Prediction,
    ) -> None:
        if self.observers:
            step = DenoiserCall(
                component=self.component,
                sample=sample_of(args, kwargs),
                timestep=_timestep(args, kwargs),
                predictions=outputs,
                mixture=mixture,
                lams=lams,
                steps_covered=predicted.steps_covered,
                extrapolated=predicted.extrapolated,
            )
            for observer in self.observers:
                observer(step)

    def _per_row(self, rows: int) -> list[Lam]:
        return [
            values[0] if len(values) == 1 else expand_to_rows(torch.tensor(values), rows, self.run)
            for values in self.lams.values
        ]

    def _learns_variance(self, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Mapping[int, Any]) -> bool:
        return applies(self.scheduler(), sample_of(args, kwargs), _prediction(next(iter(outputs.values()))))

    def _mix_learned(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Mapping[int, Any], lams: list[Lam]
    ) -> Any:
        if len(lams) > 1:
            raise LamError(
                f"{self.component} predicts its variance, where one anchor at a time can be mixed; got {len(lams)}"
            )
        reference, aligned = _prediction(outputs[0]), _prediction(outputs[1])
        mixed = mix_with_variance(reference, aligned, lams[0], self.scheduler(), _timestep(args, kwargs))
        return _replace_prediction(outputs[0], mixed)


def _timestep(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    for name in ("timestep", "timesteps", "t", "timestep_ratio"):
        if name in kwargs:
            return kwargs[name]
    return args[1]


def _prediction(output: Any) -> Any:
    if isinstance(output, Tensor | list):
        return output
    return next(iter(output.values())) if isinstance(output, Mapping) else output[0]


def _replace_prediction(output: Any, prediction: Tensor) -> Any:
    if isinstance(output, Tensor):
        return prediction
    if isinstance(output, Mapping):
        first = next(iter(output))
        return type(output)(**{**output, first: prediction})  # pyright: ignore[reportCallIssue]
    return (prediction, *output[1:])

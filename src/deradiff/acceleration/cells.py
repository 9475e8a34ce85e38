"""One call of a denoiser on images x lams: run whole, or each of its models on the cells that need it.

The rows of a sweep's batch are branches of guidance x images x lams; a *cell* is one image at one lam, all branches.
Shapes below: I images, L lams, and ``...`` a latent's.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deradiff.anchor.ensembles import Interpolated, ModelEnsemble
from deradiff.anchor.inputs import DenoiserInputs, is_position, tensors
from deradiff.anchor.state import has_state
from deradiff.errors import RealignError
from deradiff.mixture import coefficients, combine

logger = logging.getLogger("deradiff")

_OUT_OF_MEMORY = (  # in lower case: of PyTorch on CPUs and its backends, of oneDNN, of CUDA's libraries
    *("can't allocate memory", "not enough memory", "out of memory", "defaultcpuallocator", "bad_alloc"),
    *("could not create a primitive", "could not create a memory object"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed"),
)


@dataclass
class Budget:
    """How many cells go through a network at once, and how many went.

    Attributes:
        limit: cells at once; halved when memory runs out.
        nfe: network function evaluations so far, of one cell by one model each.
        fill: whether fewer cells are filled up to ``limit`` by copies, so that a network always sees as many rows:
            kernels round differently for other batch sizes, and a prediction should not depend on its neighbours.
    """

    limit: int = 8
    nfe: int = 0
    fill: bool = False


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a policy's session predicts for a call, in the structure that the denoiser returns.

    Attributes:
        mixture: what the pipeline goes on with; None where it is the mixture of ``models``.
        models: outputs of the models, 0 the reference, known or estimated; None where none was computed.
        steps_covered: for how many steps, this one included, they stand.
        extrapolated: whether part of it is extrapolated from earlier steps.
    """

    mixture: Any = None
    models: Mapping[int, Any] | None = None
    steps_covered: int = 1
    extrapolated: bool = False


@dataclass(kw_only=True)
class BatchedCall:
    """One call of a denoiser, not run yet.

    Attributes:
        ensemble: its models, 0 the reference, 1..K the anchors.
        inputs: of the call.
        row_lams: for each anchor a float, or lams ``[rows]``.
        images: how many rows one branch of guidance has.
        lams_an_image: L.
        inseparable: why the call can only be run whole; None where its rows can be run apart.
        budget: of network function evaluations.
        structure: the last output of a network, whose structure predictions take.
    """

    ensemble: ModelEnsemble | Interpolated
    inputs: DenoiserInputs
    row_lams: Sequence[float | Tensor]
    images: int
    lams_an_image: int
    inseparable: str | None
    budget: Budget
    structure: Any = None

    @cached_property
    def lams(self) -> Tensor:
        """The lam of each cell, ``[I, L]``."""
        lam = self.row_lams[0]
        rows = lam[: self.images] if isinstance(lam, Tensor) else torch.full((self.images,), lam)
        return rows.reshape(-1, self.lams_an_image)

    @property
    def sample(self) -> Tensor:
        """x_t, ``[branches, I, L, ...]``."""
        return self._by_cell(self.inputs.sample)

    @property
    def is_small(self) -> bool:
        """Whether the whole batch fits the budget, with nothing to share between the lams of an image."""
        return self.lams_an_image == 1 and self.images <= self.budget.limit and not self.budget.fill

    def run_whole(self, which: Sequence[int]) -> Mapping[int, Any]:
        """Outputs of some models on all rows."""
        assert not isinstance(self.ensemble, Interpolated)
        self.budget.nfe += len(which) * self.images
        return self.ensemble.predict(self.inputs, which)

    def run_cells(self, model: int, cells: Tensor) -> Tensor:
        """Predictions of one model where ``cells`` ``[I, L]`` is true, in that order: ``[branches, n, ...]``.

        Cells go through the network in parts of the budget's limit, which is halved when memory runs out.

        Raises:
            RealignError: one cell alone does not fit in memory.
        """
        indices = cells.flatten().nonzero()[:, 0]
        parts: list[Tensor] = []
        start = 0
        while start < len(indices):
            part = indices[start : start + self.budget.limit]
            try:
                parts.append(self._run(model, part))
            except RuntimeError as error:
                self._back_off(error, len(part))
                continue
            start += len(part)
        self.budget.nfe += len(indices)
        return torch.cat(parts, dim=1)

    def every_cell(self) -> Tensor:
        """All cells, ``[I, L]``."""
        return torch.ones_like(self.lams, dtype=torch.bool)

    def samples_are_equal(self) -> bool:
        """Whether each image has several lams, and the same sample at all of them."""
        sample = self.sample
        return self.lams_an_image > 1 and bool((sample == sample[:, :, :1]).all())

    def over(self, cells: Tensor) -> Tensor:
        """``[I, L]`` broadcast over ``[branches, I, L, ...]``."""
        sample = self.sample
        return cells.to(sample.device).reshape(1, *cells.shape, *[1] * (sample.ndim - 3))

    def where(self, cells: Tensor, value: Tensor) -> Tensor:
        """``value`` at some cells, 0 elsewhere."""
        return torch.where(self.over(cells), value, 0)

    def weights(self) -> Tensor:
        """Each cell's lam, to multiply ``[branches, I, L, ...]`` with."""
        return self.over(self.lams)

    def prediction(
        self,
        mixture: Tensor | None = None,
        models: Sequence[Tensor] | None = None,
        *,
        steps_covered: int = 1,
        extrapolated: bool = False,
    ) -> Prediction:
        """Predictions ``[branches, I, L, ...]`` in the structure that the denoiser returns."""
        return Prediction(
            mixture=None if mixture is None else self._as_output(mixture),
            models=None if models is None else dict(enumerate(map(self._as_output, models))),
            steps_covered=steps_covered,
            extrapolated=extrapolated,
        )

    def _as_output(self, prediction: Tensor) -> Any:
        flat, like = prediction.flatten(0, 2), self.structure
        if isinstance(like, Tensor):
            return flat
        if isinstance(like, Mapping):  # diffusers' output dataclasses
            kind: Any = type(like)
            return kind(**dict.fromkeys(like, flat))
        return type(like)([flat])

    def _run(self, model: int, cells: Tensor) -> Tensor:
        assert not isinstance(self.ensemble, Interpolated)
        if self.budget.fill and len(cells) < self.budget.limit:
            filled = torch.cat([cells, cells[-1:].expand(self.budget.limit - len(cells))])
            return self._run(model, filled)[:, : len(cells)]
        index = torch.cat([cells + start for start in range(0, self.inputs.rows, self.images)])
        self.structure = self.ensemble.predict(self.inputs.select(index), [model])[model]
        only = single(self.structure)
        return only.reshape(-1, len(cells), *only.shape[1:])

    def _back_off(self, error: RuntimeError, cells: int) -> None:
        if not is_out_of_memory(error):
            raise error
        if cells == 1:
            raise RealignError(
                "one image alone does not fit in memory; take a smaller size, a smaller dtype, or CPU offload"
            ) from error
        self.budget.limit = cells // 2
        free_memory(cells, self.budget.limit)

    def _by_cell(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1, self.images // self.lams_an_image, self.lams_an_image, *rows.shape[1:])


def predictions(
    call: BatchedCall, reference: Tensor, aligned: Tensor, *, shared: bool = False
) -> tuple[Tensor, Tensor]:
    """What reference and anchor predict.

    Args:
        call: of the denoiser.
        reference: cells ``[I, L]`` that need the reference.
        aligned: cells ``[I, L]`` that need the anchor.
        shared: the samples are the same at all lams of an image: one is run for all.

    Returns:
        Two of ``[branches, I, L, ...]``, zero in other cells.
    """
    models = [
        _run(call, model, cells, shared) if cells.any() else None for model, cells in enumerate((reference, aligned))
    ]
    like = next(one for one in models if one is not None)
    first, second = (torch.zeros_like(like) if one is None else one for one in models)
    return first, second


def mixed(call: BatchedCall, reference: Tensor, aligned: Tensor) -> Tensor:
    """``reference + lam (aligned - reference)``, each model untouched where it alone has weight."""
    lams = call.lams.repeat(len(reference), 1, 1).flatten().to(reference.device)
    rows = [prediction.flatten(0, 2) for prediction in (reference, aligned)]
    return combine(rows, coefficients([lams])).reshape(reference.shape)


def _run(call: BatchedCall, model: int, cells: Tensor, shared: bool) -> Tensor:
    if not shared:
        return _scatter(call.run_cells(model, cells), cells)
    once = torch.zeros_like(cells)
    once[:, 0] = cells.any(dim=1)
    lams = cells.shape[1]
    return _scatter(call.run_cells(model, once), once)[:, :, :1].repeat_interleave(lams, dim=2)


def _scatter(values: Tensor, cells: Tensor) -> Tensor:
    branches, _, *shape = values.shape
    scattered = values.new_zeros((branches, *cells.shape, *shape))
    scattered[:, cells.to(values.device)] = values
    return scattered


def why_inseparable(inputs: DenoiserInputs) -> str | None:
    """Why a call's rows can't be run apart, or None where they can."""
    if not isinstance(inputs.sample, Tensor):
        return "its samples are lists"
    if has_state(inputs.kwargs):
        return "it keeps a key-value cache"
    rows = inputs.rows
    others = [inputs.args, {name: value for name, value in inputs.kwargs.items() if not is_position(name)}]
    return "frames or layers stand before its rows" if any(_folds(one, rows) for one in tensors(others)) else None


def _folds(value: Tensor, rows: int) -> bool:
    """Whether an input holds its rows folded with something else (AnimateDiff's frames, HiDream's layers)."""
    return rows > 1 and value.ndim > 2 and len(value) != rows and (len(value) % rows == 0 or value.shape[1] == rows)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def free_memory(images: int, fewer: int) -> None:
    """Empty the cache of freed memory before fewer images are tried, and log that."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of memory with %d images at once: going on with %d", images, fewer)


def single(output: Any) -> Tensor:
    """The one tensor that a denoiser returned.

    Raises:
        RealignError: it returned several.
    """
    parts = list(tensors(output))
    if len(parts) != 1:
        raise RealignError(f"the denoiser returns {len(parts)} tensors, so its rows can't be run apart; use Exact()")
    return parts[0]

"""Some rows of a denoiser's call through one of its models: gather, call in parts that fit in memory, scatter.

The rows of a sweep's batch are branches of guidance x images x lams; a *cell* is one image at one lam, all branches.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deradiff.anchor.ensembles import ModelEnsemble
from deradiff.anchor.inputs import batch_rows, sample_of, select_rows, tensors
from deradiff.errors import RealignError

logger = logging.getLogger("deradiff")

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # PyTorch on CPUs, and its backends


@dataclass
class Budget:
    """How many cells go through a network at once, and how many went.

    Attributes:
        limit: cells at once; halved when memory runs out.
        calls: cells that went through a network so far, one model each.
        fill: whether fewer cells are filled up to ``limit`` by copies, so that a network always sees as many rows:
            kernels round differently for other batch sizes, and a prediction should not depend on its neighbours.
    """

    limit: int = 8
    calls: int = 0
    fill: bool = False


@dataclass(kw_only=True)
class BatchedCall:
    """One call of a denoiser on images x lams, not run yet.

    Attributes:
        models: 0 the reference, 1 the anchor.
        call: the denoiser.
        args: of the call.
        kwargs: of the call.
        lams: (I, L), of each cell.
        budget: of network calls.
        output: the last output of a network, whose structure others take.
    """

    models: ModelEnsemble
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    lams: Tensor
    budget: Budget
    output: Any = field(default=None)

    @property
    def sample(self) -> Tensor:
        """The noisy sample, (branches, I, L, ...)."""
        return self._apart(sample_of(self.args, self.kwargs))

    def predict(self, model: int, cells: Tensor) -> Tensor:
        """Predictions of one model.

        Args:
            model: 0 the reference, 1 the anchor.
            cells: (I, L), true where it is wanted, somewhere.

        Returns:
            (branches, K, ...) of the K cells wanted, in their order.
        """
        wanted = cells.flatten().nonzero()[:, 0]
        parts: list[Tensor] = []
        start = 0
        while start < len(wanted):
            part = wanted[start : start + self.budget.limit]
            try:
                parts.append(self._run(model, part))
            except RuntimeError as error:
                self._back_off(error, len(part))
                continue
            start += len(part)
        self.budget.calls += len(wanted)
        return torch.cat(parts, dim=1)

    def every(self) -> Tensor:
        """All cells, (I, L)."""
        return torch.ones_like(self.lams, dtype=torch.bool)

    def shared(self) -> bool:
        """Whether each image has several lams, and its sample is the same at all of them."""
        sample = self.sample
        return self.lams.shape[1] > 1 and bool((sample == sample[:, :, :1]).all())

    def over(self, cells: Tensor) -> Tensor:
        """(I, L) broadcast over (branches, I, L, ...)."""
        sample = self.sample
        return cells.to(sample.device).reshape(1, *cells.shape, *[1] * (sample.ndim - 3))

    def where(self, cells: Tensor, value: Tensor) -> Tensor:
        """A value at some cells, 0 elsewhere."""
        return torch.where(self.over(cells), value, 0)

    def weights(self) -> Tensor:
        """Each cell's lam, to multiply (branches, I, L, ...) with."""
        return self.over(self.lams)

    def answer(self, prediction: Tensor) -> Any:
        """A prediction (branches, I, L, ...) in the structure that the denoiser returns."""
        flat = prediction.flatten(0, 2)
        if isinstance(self.output, Tensor):
            return flat
        if isinstance(self.output, Mapping):  # diffusers' output dataclasses
            return type(self.output)(**dict.fromkeys(self.output, flat))  # pyright: ignore[reportCallIssue]
        return type(self.output)([flat])

    def _run(self, model: int, cells: Tensor) -> Tensor:
        if self.budget.fill and len(cells) < self.budget.limit:
            filled = torch.cat([cells, cells[-1:].expand(self.budget.limit - len(cells))])
            return self._run(model, filled)[:, : len(cells)]
        rows = batch_rows(self.args, self.kwargs)
        a_branch = self.lams.numel()
        index = torch.cat([cells + start for start in range(0, rows, a_branch)])
        args, kwargs = select_rows((self.args, self.kwargs), rows, index)
        self.output = self.models.run(self.call, args, kwargs, [model])[model]
        only = single(self.output)
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

    def _apart(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1, *self.lams.shape, *rows.shape[1:])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def free_memory(images: int, fewer: int) -> None:
    """Let go of cached memory before fewer images are tried, and tell that."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of memory with %d images at once: going on with %d", images, fewer)


def single(output: Any) -> Tensor:
    """The one tensor that a denoiser returned.

    Raises:
        RealignError: it returned several.
    """
    found = list(tensors(output))
    if len(found) != 1:
        raise RealignError(
            f"the denoiser returns {len(found)} tensors, so its calls can't be taken apart; sweep exactly"
        )
    return found[0]

"""The prior over paired changes: how they vary along lam, between prompts and between pairs.

A change is the mean curve, plus the prompt's departure from it, plus the pair's departure from its prompt; each is a
Gaussian process along lam that is 0 at lam = 0. Inputs are rows (lam as a share of the largest, prompt, seed).
"""

from typing import Any

import numpy as np
from sklearn.gaussian_process import kernels

SIZES, LENGTHS = (1e-3, 1e2), (0.2, 10.0)  # where fits may end: variances, and lengths in shares of the range
_Kernel: Any = kernels.Kernel  # sklearn's classes are untyped
_Matern: Any = kernels.Matern


class PinnedMatern(_Matern):
    """Matern along lam of a process known to be 0 at lam = 0: k(a, b) - k(a, 0) k(0, b)."""

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """As sklearn's kernels."""
        rows_x, rows_y = (None if rows is None else np.vstack([rows[:, :1], [[0.0]]]) for rows in (X, Y))
        kernel = super().__call__(rows_x, rows_y, eval_gradient=eval_gradient)
        k, slope = kernel if eval_gradient else (kernel, None)
        to_zero, from_zero = k[:-1, -1:], k[-1:, :-1]
        if slope is None:
            return k[:-1, :-1] - to_zero * from_zero
        pinned = slope[:-1, :-1] - slope[:-1, -1:] * from_zero[..., None] - to_zero[..., None] * slope[-1:, :-1]
        return k[:-1, :-1] - to_zero * from_zero, pinned

    def diag(self, X: Any) -> Any:
        """As sklearn's kernels."""
        return 1 - super().__call__(X[:, :1], np.zeros((1, 1)))[:, 0] ** 2

    def is_stationary(self) -> bool:
        """As sklearn's kernels."""
        return False


class IndicatorKernel(_Kernel):
    """1 where two rows agree in a column, else 0."""

    def __init__(self, column: int) -> None:
        self.column = column

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """As sklearn's kernels."""
        same = (X[:, None, self.column] == (X if Y is None else Y)[None, :, self.column]).astype(float)
        return (same, np.empty((*same.shape, 0))) if eval_gradient else same

    def diag(self, X: Any) -> Any:
        """As sklearn's kernels."""
        return np.ones(len(X))

    def is_stationary(self) -> bool:
        """As sklearn's kernels."""
        return False


def prior() -> Any:
    """The sum of the three, for changes in units of their standard deviation; rougher from each to the next."""
    mean, prompt, pair = (
        kernels.ConstantKernel(size, SIZES) * PinnedMatern(length, LENGTHS, nu=nu)
        for size, length, nu in ((1.0, 1.0, 2.5), (0.3, 1.0, 1.5), (0.5, 0.5, 0.5))
    )
    return mean + prompt * IndicatorKernel(1) + pair * IndicatorKernel(1) * IndicatorKernel(2)

"""The last two records of a prediction, and what they say of the next step."""

from torch import Tensor

from deradiff.acceleration.solver import SolverCoefficients


class LinearExtrapolator:
    """Records of a prediction at steps at which it was known; ``steps[0]`` is the last one."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.steps: list[int] = []

    @property
    def before(self) -> int | None:
        """The step of the record before the last."""
        return self.steps[1] if len(self.steps) > 1 else None

    def extrapolated(self, solver: SolverCoefficients, now: int) -> Tensor:
        """Linear in the solver's time coordinate; the last record alone where there is but one."""
        factor = solver.linear(now, self.steps[0], self.before)
        return self.values[0] + factor * (self.values[0] - self.values[-1])

    def error_correction(self, solver: SolverCoefficients, now: int) -> float:
        """See :meth:`SolverCoefficients.error_correction`."""
        return solver.error_correction(now, self.steps[0], self.before)

    def record(self, now: int, value: Tensor) -> None:
        """Note what was predicted at a step."""
        self.values = [value, *self.values[:1]]
        self.steps = [now, *self.steps[:1]]

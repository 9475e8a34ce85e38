"""What the calls of a denoiser since the scheduler's last step tell of this one."""

import torch
from torch import Tensor

from deradiff.noise import NoiseLevel
from deradiff.predict import convert_difference
from deradiff.trajectory.denoiser_call import DenoiserCall
from deradiff.trajectory.guided import guided_difference


class CallBuffer:
    """Gathers calls, and remembers a difference that stands for several steps.

    Attributes:
        calls: since the last step.
        exact: whether every step's difference was computed so far.
    """

    def __init__(self) -> None:
        self.calls: list[DenoiserCall] = []
        self.exact = True
        self._standing: tuple[Tensor, int] | None = None  # Δeps, and for how many more steps
        self._lam = torch.zeros(())

    def difference(self, output: Tensor, form: str, level: NoiseLevel) -> tuple[Tensor, Tensor] | None:
        """Aligned − reference of the guided models, (B, ...), and lam, (B,); both float64 on the CPU.

        Args:
            output: (B, ...), what the scheduler is given.
            form: of that prediction.
            level: of x_t, shape ().

        Returns:
            None where it can't be inferred.

        Raises:
            ScheduleError: a level at which a difference that stands can't be brought to this form.
        """
        if not self.calls and self._standing and self._standing[1] > 0:
            eps, steps = self._standing
            self._standing = eps, steps - 1
            return convert_difference(eps, level, "epsilon", form), self._lam
        found = guided_difference(output, self.calls)
        if found is None:
            return None
        lam = torch.as_tensor(self.calls[0].lams[0], dtype=torch.float64, device="cpu")
        self._lam = lam[: len(output)] if lam.ndim else lam.expand(len(output))
        span = max(call.steps_covered for call in self.calls)
        if span > 1:
            self.exact = False
            self._standing = convert_difference(found, level, form, "epsilon"), span - 1
        return found, self._lam

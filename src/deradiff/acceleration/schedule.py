"""Which steps of a run call the networks when the rest is extrapolated."""

import math

# Where extrapolation errs most, in shares of the steps (deterministic samplers on the embedded pipeline): at the noisy
# end images decide what to become, at the clean end log-SNR runs away.
_NOISY, _NOISY_WIDTH = 2.0, 0.1
_CLEAN, _CLEAN_WIDTH = 3.0, 0.06


def computed_steps(steps: int, count: int) -> list[int]:
    """``count`` of ``steps`` steps: the first two, the last, and others closer together at either end.

    Args:
        steps: N.
        count: how many call the networks, at least 3.

    Returns:
        Ascending indices; all of them where ``count`` is ``steps`` or more.
    """
    if count >= steps or steps <= 3:
        return list(range(steps))
    density = [
        1
        + _NOISY * math.exp(-step / (_NOISY_WIDTH * steps))
        + _CLEAN * math.exp(-(steps - 1 - step) / (_CLEAN_WIDTH * steps))
        for step in range(steps)
    ]
    total = sum(density[2:])
    chosen, passed = [0, 1], 0.0
    for step in range(2, steps):
        passed += density[step]
        due = passed / total >= (len(chosen) - 1) / (count - 2) - 1e-9
        if due or steps - step == count - len(chosen):
            chosen.append(step)
    return chosen

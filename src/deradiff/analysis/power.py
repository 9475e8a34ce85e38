"""How many prompts would settle a lam.

From a pilot of P prompts with mean slack d and standard deviation s, the mean over N fresh prompts is expected within
s sqrt(1/N + 1/P) of d: the pilot errs as well as the fresh sample. So N is the smallest number at which the test of
`deradiff.analysis.limits` still passes when the pilot's prompts, repeated to N, are shifted down by the 80% quantile
of that (the *assurance* of O'Hagan, Stevens & Campbell 2005). Where the pilot's own error already uses up the slack, no
number can be named.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs]

from deradiff.analysis.limits import Floats, PromptMeans, p_values, prompt_means

POWER = 0.8
MOST_TIMES = 100  # as many prompts as there are, beyond which a number is no advice


def prompts_to_show(tests: Sequence[tuple[PromptMeans, float]], power: float = POWER) -> int | None:
    """The number of prompts like these with which all means are shown to be above 0; None where it can't be inferred.

    Args:
        tests: pairs of the prompts' values (K = 1, two prompts or more), such as a guard's slack at a lam, and the
            one-sided risk at which they are tested.
        power: the wanted probability of showing it.
    """
    needed = [_prompts(sample, risk, power) for sample, risk in tests]
    return None if None in needed else max(filter(None, needed), default=2)


def _prompts(sample: PromptMeans, risk: float, power: float) -> int | None:
    values = np.sort(sample.means[np.isfinite(sample.means)])
    pilot = len(values)
    if pilot < 2:
        return None
    low, high = 1, MOST_TIMES * pilot
    if not _passes(sample, values, high, risk, power):
        return None
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(sample, values, middle, risk, power) else (middle, high)
    return max(high, 2)


def _passes(sample: PromptMeans, values: Floats, prompts: int, risk: float, power: float) -> bool:
    """Whether ``prompts`` prompts like these pass the test when they are less lucky than the pilot."""
    pilot, spread = len(values), float(sample.scale[0])
    unlucky = float(stdtrit(pilot - 1, power)) * spread * np.sqrt(1 / prompts + 1 / pilot)
    repeated = (
        values[np.floor(np.arange(prompts) * pilot / prompts).astype(int)]
        if prompts < pilot
        else np.resize(values, prompts)
    )
    shifted = repeated - unlucky
    if prompts < 2:
        return False
    fresh = prompt_means(shifted[:, None, None], sample.lowest, sample.highest)
    return bool(p_values(fresh, risk)[0] <= risk)

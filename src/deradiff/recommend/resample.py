"""A joint bootstrap of means over prompts: every lam and reward of one resample is of the same prompts.

Prompts are drawn anew, P - 1 of P, for which the variance of a mean is unbiased (Rao & Wu 1988), and their deviations
widened by the ratio of Student's to the normal quantile, for which few prompts don't look surer than they are. A drawn
prompt brings its seeds: redrawing those too would count their noise twice (Davison & Hinkley 1997, §3.8), which
``benchmarks/resampling.py`` measures.
"""

from functools import lru_cache

import numpy as np
from scipy.special import ndtri, stdtrit

from deradiff.recommend.intervals import Floats

DRAWS = 4000


@lru_cache(maxsize=4)
def draw(prompts: int, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Weights (draws, P) of P >= 2 prompts, each draw's summing to 1; the same for the same seed."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(prompts - 1, np.full(prompts, 1 / prompts), size=draws) / (prompts - 1)
    widened = float(stdtrit(prompts - 1, 0.975) / ndtri(0.975))
    return 1 / prompts + widened * (weights - 1 / prompts)

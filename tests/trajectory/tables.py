"""Tables of results whose paths are known in closed form."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deradiff.results import Results


def gaussian(
    lams: Sequence[float], shift: float = 1.0, prompts: int = 40, seeds: int = 50, rng_seed: int = 0, **changes: Any
) -> Results:
    """Reference N(m, 1), anchor N(m + shift, 1) with m of each prompt; the reward is the image itself.

    Q is the same for all paths, so stepwise mixing is exact: N(m + lam shift, 1).
    """
    rng = np.random.default_rng(rng_seed)
    level = 3 * rng.normal(size=(prompts, 1, 1))
    away = rng.normal(size=(prompts, seeds, len(lams))) + shift * np.array(lams)
    shape = away.shape
    given: dict[str, Any] = {
        "prompts": tuple(map(str, range(prompts))),
        "seeds": tuple(range(seeds)),
        "lams": tuple(lams),
        "scores": {"r": level + away},
        "paths": {"implicit_reward": shift * away - 0.5 * shift**2, "q": np.full(shape, shift**2)},
        "images": np.full(shape, "", dtype=object),
    }
    return Results(**{**given, **changes})

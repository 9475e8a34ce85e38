"""A sweep's scores as one dense, paired table: prompts x seeds x lams.

Everything that chooses or draws (``recommend``, ``report``) reads this table and knows no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deradiff.errors import ResultsError


@dataclass(frozen=True, kw_only=True)
class Results:
    """Scores of every image of a sweep; P prompts, S seeds, L lams, each image present once.

    Attributes:
        prompts: P prompts.
        seeds: S seeds; the images of one (prompt, seed) share all noise across lams, so they are pairs.
        lams: L mixing weights, ascending; 0 is the reference, 1 the anchor.
        scores: reward name -> array (P, S, L), higher is better unless ``better`` says otherwise.
        unscored: reward name -> how many images have no score of it yet; such a reward is not among ``scores``.
        path_kl: path KL to the reference in nats, array (P, S, L), or None where it was not recorded.
        paths: what else their paths tell (`deradiff.paths.Paths`), name -> array (P, S, L), nan where it isn't known.
        images: image files, array of paths (P, S, L).
        better: reward name -> ``higher``, ``steady`` (neither up nor down is better) or ``none`` (it says how far a
            picture moved, not whether that is good); ``higher`` where nothing is said.
        anchor_beta: KL strength the anchor was aligned at, or None where its card does not say.
        details: what a reader needs to repeat the run (model, anchor, scheduler, steps, guidance, ...).

    Raises:
        ResultsError: an array of another shape, lams that do not ascend, or a score that is not finite.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    lams: tuple[float, ...]
    scores: Mapping[str, NDArray[np.float64]]
    images: NDArray[np.object_]
    unscored: Mapping[str, int] = field(default_factory=dict)
    path_kl: NDArray[np.float64] | None = None
    paths: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    better: Mapping[str, str] = field(default_factory=dict)
    anchor_beta: float | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.prompts), len(self.seeds), len(self.lams))
        if 0 in shape:
            raise ResultsError(f"no images: {shape[0]} prompts x {shape[1]} seeds x {shape[2]} lams; run a sweep first")
        if any(a >= b for a, b in zip(self.lams, self.lams[1:], strict=False)):
            raise ResultsError(f"lams must ascend without repeats, got {self.lams}")
        tables = {**self.scores, **self.paths, "images": self.images}
        if self.path_kl is not None:
            tables["path_kl"] = self.path_kl
        for name, table in tables.items():
            if table.shape != shape:
                raise ResultsError(f"{name}: expected one value per prompt, seed and lam {shape}, got {table.shape}")
        for name, table in self.scores.items():
            if bad := int(np.sum(~np.isfinite(table))):
                raise ResultsError(f"{name}: {bad} of {table.size} scores are nan or infinite; expected finite numbers")

    def scored(self, reward: str) -> NDArray[np.float64]:
        """The scores of one reward, (P, S, L).

        Raises:
            ResultsError: an unknown reward, or one that some images have no score of yet.
        """
        if reward in self.unscored:
            raise ResultsError(self.lack(reward))
        if reward not in self.scores:
            there = ", ".join([*self.scores, *self.unscored]) or "none"
            raise ResultsError(f"no reward {reward!r} here; there are: {there}; choose one, or run deradiff score")
        return self.scores[reward]

    def lack(self, reward: str) -> str:
        """What to say of a reward that some images have no score of yet."""
        missing = f"{self.unscored[reward]} of {self.images.size} images have no score of {reward}"
        return f"{missing}; score the run again: deradiff score RUN --rewards {reward}"

    def image(self, prompt: int, seed: int, lam: int) -> Path:
        """The file of one image, by its indices."""
        return Path(self.images[prompt, seed, lam])

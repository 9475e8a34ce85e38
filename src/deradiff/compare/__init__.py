"""Comparison of lam with retraining: same prompts, same seeds, same noise.

Notation: beta is a KL strength, which lam = (the anchor's beta) / beta emulates. Retrained models are aligned from
scratch at beta. An arm is one way to obtain images for each beta: retrained models, DeRaDiff, weight interpolation, the
anchor, the reference, or the null predictor. Arrays of scores have the axes ``[betas, prompts, seeds]``.
"""

from deradiff.compare.aligned import Aligned as Aligned
from deradiff.compare.api import compare as compare
from deradiff.compare.settings import Comparison as Comparison

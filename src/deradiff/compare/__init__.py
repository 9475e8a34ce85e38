"""How well lam emulates models aligned from scratch at other betas: same prompts, same seeds, same noise."""

from deradiff.compare.aligned import Aligned as Aligned
from deradiff.compare.api import compare as compare
from deradiff.compare.settings import Comparison as Comparison

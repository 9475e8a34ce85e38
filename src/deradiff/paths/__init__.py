"""What happens along sampled paths: divergences for free, and particles that put back what stepwise mixing drops."""

from deradiff.paths.observed import Observer as Observer
from deradiff.paths.observed import Step as Step
from deradiff.paths.paths import Paths as Paths
from deradiff.paths.walk import Walk as Walk

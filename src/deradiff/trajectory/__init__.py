"""The trajectory of latents of one sample: its statistics, and particles that correct stepwise mixing.

Notation, beside that of `deradiff.noise` and `deradiff.divergence`:

    x_t, x_s    states before and after a step of the scheduler
    K           particles for each image; a batch has images x K rows
    w, ESS      Feynman–Kac weights of particles, and their effective sample size
"""

from deradiff.trajectory.calls import DenoiserCall as DenoiserCall
from deradiff.trajectory.calls import Observer as Observer
from deradiff.trajectory.recorder import PathRecorder as PathRecorder
from deradiff.trajectory.statistics import Paths as Paths

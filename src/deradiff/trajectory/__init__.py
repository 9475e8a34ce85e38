"""What happens along sampled paths: divergences for free, and particles that put back what stepwise mixing drops."""

from deradiff.trajectory.denoiser_call import DenoiserCall as DenoiserCall
from deradiff.trajectory.denoiser_call import Observer as Observer
from deradiff.trajectory.recorder import PathRecorder as PathRecorder
from deradiff.trajectory.statistics import Paths as Paths

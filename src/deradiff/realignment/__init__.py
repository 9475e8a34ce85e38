"""Realign a diffusers pipeline: the hook on its denoiser, and the handle the user holds."""

from deradiff.realignment.api import realign as realign
from deradiff.realignment.handle import Handle as Handle
from deradiff.realignment.handle import handle_of as handle_of
from deradiff.realignment.handle import observing as observing
from deradiff.realignment.handle import sweeping as sweeping
from deradiff.trajectory import DenoiserCall as DenoiserCall
from deradiff.trajectory import Paths as Paths

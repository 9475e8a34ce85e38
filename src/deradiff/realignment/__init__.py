"""Realign a diffusers pipeline: the hook on its denoiser, and the handle the user holds."""

from deradiff.paths import Paths as Paths
from deradiff.paths import Step as Step
from deradiff.realignment.handle import Handle as Handle
from deradiff.realignment.realign import realign as realign

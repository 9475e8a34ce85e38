"""Aligning a diffusion model to preferences: Diffusion-DPO on any pipeline that ``realign`` supports.

Notation: beta is the KL strength, (t, eps) a timestep and noise, the policy the model in training, the reference its
frozen start; :mod:`deradiff.align.loss` defines the loss and :mod:`deradiff.align.convention` the units of beta.
"""

from deradiff.align.convention import Convention as Convention
from deradiff.align.convention import convert_beta as convert_beta
from deradiff.align.loss import dpo_loss as dpo_loss
from deradiff.align.loss import ipo_loss as ipo_loss
from deradiff.align.pairs import Pair as Pair
from deradiff.align.pairs import Pairs as Pairs
from deradiff.align.pairs import read_pairs as read_pairs
from deradiff.align.pairs import write_pairs as write_pairs
from deradiff.align.settings import Settings as Settings
from deradiff.align.trainer import align as align
from deradiff.align.training import Step as Step

__all__ = [
    "Convention",
    "Pair",
    "Pairs",
    "Settings",
    "Step",
    "align",
    "convert_beta",
    "dpo_loss",
    "ipo_loss",
    "read_pairs",
    "write_pairs",
]

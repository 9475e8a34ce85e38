"""Baking: one ordinary LoRA or checkpoint that stands for a realigned pipeline at the price of one call a step."""

from deradiff.bake.api import bake as bake
from deradiff.bake.distillation import Distillation as Distillation
from deradiff.bake.distillation import DistillationResult as DistillationResult
from deradiff.bake.distillation import distil as distil
from deradiff.bake.files import write_checkpoint as write_checkpoint
from deradiff.bake.files import write_lora as write_lora
from deradiff.bake.quality import BakeQuality as BakeQuality
from deradiff.bake.quality import measure as measure
from deradiff.bake.weights import LoraUpdate as LoraUpdate
from deradiff.bake.weights import bake_weights as bake_weights
from deradiff.bake.weights import interpolate_weights as interpolate_weights

__all__ = [
    "BakeQuality",
    "Distillation",
    "DistillationResult",
    "LoraUpdate",
    "bake",
    "bake_weights",
    "distil",
    "interpolate_weights",
    "measure",
    "write_checkpoint",
    "write_lora",
]

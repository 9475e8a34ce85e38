"""Tiny random pipelines in the real classes of diffusers, built here without a hub, to test laws on."""

from __future__ import annotations

from . import (
    caches,
    cascades,
    controls,
    dits,
    flux,
    hunyuan,
    mmdits,
    sequences,
    stable_diffusion,
    variances,
    video_unets,
    videos,
    wan,
)
from .specimen import Specimen as Specimen
from .specimen import anchor_of as anchor_of

FAMILIES = (
    stable_diffusion,
    controls,
    dits,
    mmdits,
    sequences,
    hunyuan,
    flux,
    cascades,
    variances,
    wan,
    videos,
    video_unets,
    caches,
)
ZOO: dict[str, Specimen] = {specimen.name: specimen for family in FAMILIES for specimen in family.SPECIMENS}

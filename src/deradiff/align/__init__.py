"""Aligning a diffusion model to preferences: Diffusion-DPO."""

from deradiff.align.loss import dpo_loss as dpo_loss

__all__ = ["dpo_loss"]

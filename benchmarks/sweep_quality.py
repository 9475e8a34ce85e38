"""How far the final latents and the rewards of one way of sampling are from those of the exact way."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deradiff import testbed

REWARDS = {"warmth": testbed.warmth, "faithfulness": testbed.faithfulness}
LARGE = 0.05


def relative_error(latents: Tensor, exact: Tensor) -> Tensor:
    """The norm of the difference over that of the exact latents, (images, lams), of (images, lams, C, H, W)."""
    return (latents - exact).flatten(2).norm(dim=2) / exact.flatten(2).norm(dim=2)


def errors(latents: Tensor, exact: Tensor) -> dict[str, float]:
    """Mean error over images and lams, its standard error over images, the worst lam's, and the share of large ones."""
    error = relative_error(latents, exact)
    return {
        "rel_error": float(error.mean()),
        "rel_error_se": float(error.mean(1).std() / len(error) ** 0.5),
        "worst_lam_error": float(error.mean(0).max()),
        "share_over_5_percent": float((error > LARGE).float().mean()),
    }


@torch.no_grad()
def rewards(pipe: Any, latents: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Scores (images, lams) of the embedded pipeline's images; one prompt an image."""
    scores: dict[str, list[Tensor]] = {name: [] for name in REWARDS}
    for image, prompt in zip(latents.to(pipe.device, pipe.dtype), prompts, strict=True):
        decoded = pipe.vae.decode(image / pipe.vae.config.scaling_factor).sample
        pixels = pipe.image_processor.postprocess(decoded, output_type="pt").float().cpu()
        for name, reward in REWARDS.items():
            scores[name].append(reward(pixels, [prompt] * len(pixels)))
    return {name: torch.stack(values) for name, values in scores.items()}


def reward_changes(scores: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """By reward: the largest change of a lam's mean, in units of its standard error (pooled over lams), and the mean
    absolute change of a single image's.
    """
    changes: dict[str, float] = {}
    for name, before in exact.items():
        change = scores[name] - before
        standard_error = (before.var(0).mean() / len(before)).sqrt()
        largest = change.mean(0).abs().max()
        changes[f"{name}_change_in_se"] = float(largest / standard_error) if largest else 0.0
        changes[f"{name}_change_per_image"] = float(change.abs().mean())
    return changes

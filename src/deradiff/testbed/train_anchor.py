"""Train anchors: LoRAs by Diffusion-DPO on the reference's own samples, under Bradley-Terry labels of `warmth`.

The convention of beta: squared errors of eps are summed over the latent and a pair's label is
sigmoid(reward_a - reward_b). The timestep weight is one constant, sum_t beta_t / (2 alpha_t (1 - alphabar_t)): what the
KL divergence of two reverse chains of variances beta_t would be for |eps - eps_ref|^2 = 1 at every t.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deradiff.align.loss import dpo_loss, drift
from deradiff.testbed.architecture import SCHEDULE, make_noise
from deradiff.testbed.descend import descend
from deradiff.testbed.pool import Pool

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2")
CONVENTION = {
    "loss": "Diffusion-DPO: -log sigmoid(-beta * factor * timestep_weight * difference of squared errors of eps)",
    "reduction": "sum over the latent",
    "factor": 1.0,
    "labels": "soft Bradley-Terry: sigmoid(reward_a - reward_b)",
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How one anchor is trained: ``pairs`` a step, each over ``draws`` of (t, eps) averaged inside the sigmoid."""

    beta: float
    seed: int = 0
    steps: int = 240
    pairs: int = 12
    draws: int = 2
    learning_rate: float = 1e-3
    rank: int = 4


def kl_weight() -> float:
    """The sum over t of beta_t / (2 alpha_t (1 - alphabar_t)), over all t but the first."""
    noise = make_noise()
    betas, alphas_bar = noise.betas.double(), noise.alphas_cumprod.double()
    return float((betas / (2 * (1 - betas) * (1 - alphas_bar)))[1:].sum())


def train_anchor(
    pipe: StableDiffusionPipeline,
    pool: Pool,
    folder: Path,
    training: Training,
    *,
    report: Callable[[int, float], None],
) -> None:
    """Train one LoRA and write it, with its card, to ``folder``; ``report`` gets step and loss."""
    torch.manual_seed(training.seed)
    policy = copy.deepcopy(pipe.unet)
    config = LoraConfig(r=training.rank, lora_alpha=training.rank, target_modules=list(TARGETS))
    policy.add_adapter(config)
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0, betas=(0.9, 0.99))
    rate = get_cosine_schedule_with_warmup(optimizer, training.steps // 15, training.steps)
    weight = kl_weight()

    def loss() -> Tensor:
        return _loss(pipe.unet, policy, pool, training, weight)

    descend(loss, optimizer, rate, steps=training.steps, report=report)
    card = asdict(training) | {
        "beta_convention": CONVENTION | {"timestep_weight": weight},
        "reward": "deradiff.testbed.warmth",
        "reference": "deradiff.testbed",
    }
    save_anchor(policy, config, folder, card)


def _loss(
    reference: UNet2DConditionModel, policy: UNet2DConditionModel, pool: Pool, training: Training, weight: float
) -> Tensor:
    """Loss on random pairs of samples of the same prompt, both noised alike."""
    noise, (prompts, images) = make_noise(), pool.rewards.shape
    prompt = torch.randint(prompts, (training.pairs,))
    first = torch.randint(images, (training.pairs,))
    second = (first + torch.randint(1, images, (training.pairs,))) % images
    clean = torch.stack([pool.latents[prompt, first], pool.latents[prompt, second]])
    clean = clean.expand(training.draws, *clean.shape)  # [draws, 2, pairs, C, 8, 8]
    eps = torch.randn_like(clean[:, :1]).expand_as(clean)
    t = torch.randint(SCHEDULE["num_train_timesteps"], (training.draws, 1, training.pairs)).expand(clean.shape[:3])
    condition = pool.embeddings[prompt].expand(*clean.shape[:2], *pool.embeddings[prompt].shape)
    t = t.flatten()
    x_t = noise.add_noise(clean.flatten(0, 2), eps.flatten(0, 2), t)  # pyright: ignore[reportArgumentType]

    def squared_error(unet: UNet2DConditionModel) -> Tensor:
        predicted = unet(x_t, t, condition.flatten(0, 2)).sample.view_as(eps)
        return (predicted - eps).square().sum((3, 4, 5)).mean(0)  # [2, pairs]

    with torch.no_grad():
        before = squared_error(reference)
    after = squared_error(policy)
    probability = torch.sigmoid(pool.rewards[prompt, first] - pool.rewards[prompt, second])
    return dpo_loss(-weight * drift(after, before), beta=training.beta, probability=probability)


def save_anchor(policy: UNet2DConditionModel, config: LoraConfig, folder: Path, card: dict[str, Any]) -> None:
    """Write the LoRA of a denoiser in diffusers' format, in fp16, with ``card`` as metadata ``deradiff``."""
    weights = get_peft_model_state_dict(policy)
    layers: dict[str, nn.Module | Tensor] = {name: weight.half() for name, weight in weights.items()}
    StableDiffusionPipeline.save_lora_weights(folder, layers, unet_lora_adapter_metadata=config.to_dict())
    path = folder / "pytorch_lora_weights.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"deradiff": json.dumps(card)}
    save_file(load_file(path), path, metadata)

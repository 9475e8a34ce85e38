"""DeRaDiff as it was published: two networks in turn, one image and one lam at a time, both always run."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn


class Published:
    """Two networks, the second a full copy with the LoRA merged, under the scheduler of the pipeline.

    Args:
        pipe: a pipeline of Stable Diffusion 1.5 or XL; its own network is the reference.
        anchor: folder of the LoRA.
    """

    def __init__(self, pipe: Any, anchor: Path) -> None:
        self.pipe, self.reference = pipe, pipe.unet
        self.aligned = copy.deepcopy(pipe.unet)
        self.aligned.load_lora_adapter(anchor, prefix="unet", use_safetensors=True)
        self.aligned.fuse_lora()
        self.aligned.unload_lora()

    @torch.no_grad()
    def sample(
        self, prompt: str, generator: torch.Generator, lam: float, *, guidance: float, steps: int, side: int
    ) -> Tensor:
        """Final latents (1, C, side, side) of one prompt at one lam."""
        pipe, guided = self.pipe, guidance > 1
        given, scheduler = conditions(pipe, prompt, guided, side), pipe.scheduler
        scheduler.set_timesteps(steps, device=pipe.device)
        shape = (1, self.reference.config.in_channels, side, side)
        latents = randn_tensor(shape, generator, pipe.device, pipe.dtype) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            rows = torch.cat([latents, latents]) if guided else latents
            rows = scheduler.scale_model_input(rows, t)
            reference = self.reference(rows, t, **given).sample
            aligned = self.aligned(rows, t, **given).sample
            noise = (1 - lam) * reference + lam * aligned
            if guided:
                unconditional, conditional = noise.chunk(2)
                noise = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(noise, t, latents, generator=generator).prev_sample
        return latents


def conditions(pipe: Any, prompt: str, guided: bool, side: int) -> dict[str, Any]:
    """What the networks are told of a prompt; where guided, of the empty prompt first."""

    def stacked(conditional: Tensor, unconditional: Tensor) -> Tensor:
        return torch.cat([unconditional, conditional]) if guided else conditional

    encoded = pipe.encode_prompt(
        prompt, device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=guided
    )
    states = stacked(encoded[0], encoded[1])
    if len(encoded) == 2:
        return {"encoder_hidden_states": states}
    size = side * pipe.vae_scale_factor
    ids = torch.tensor([[size, size, 0, 0, size, size]], dtype=pipe.dtype, device=pipe.device)
    added = {"text_embeds": stacked(encoded[2], encoded[3]), "time_ids": ids.expand(len(states), -1)}
    return {"encoder_hidden_states": states, "added_cond_kwargs": added}


class BatchedCall:
    """How many images went through networks, all branches of guidance of one counted once."""

    def __init__(self, branches: int) -> None:
        self.branches, self.rows = branches, 0

    @property
    def count(self) -> int:
        """Network calls so far."""
        return self.rows // self.branches

    def see(self, network: nn.Module, args: tuple[Any, ...]) -> None:
        """Hook before a network's forward, whose first argument is the batch."""
        self.rows += len(args[0])


@contextmanager
def counting(networks: list[nn.Module], guidance: float) -> Iterator[BatchedCall]:
    """Count the calls of networks within the block, whoever makes them."""
    calls = BatchedCall(2 if guidance > 1 else 1)
    hooks = [network.register_forward_pre_hook(calls.see) for network in networks]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()

"""The weights bake: ``sum_k lam_k (theta_k - theta_ref)`` as one LoRA, or as one checkpoint.

This interpolates weights, as model soups do (arXiv 2203.05482). Realignment mixes predictions, which is the same where
the network is linear in its weights: near lam = 0 and lam = 1, less so beyond.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from deradiff.acceleration import Weights
from deradiff.anchor.ensembles import InterpolatedAdapters, InterpolatedNetworks
from deradiff.anchor.module_tree import adapters_of, plain_name, weights_of
from deradiff.bake.low_rank import LowRank, factorize, truncate, weighted_sum
from deradiff.errors import BakeError
from deradiff.realignment import realign
from deradiff.realignment.handle import hooks_of
from deradiff.realignment.hook import DenoiserHook
from deradiff.realignment.lams import LamLike

ENERGY = 0.99  # kept of a dense update where no rank is asked for


@dataclass(frozen=True, kw_only=True, eq=False)
class LoraUpdate:
    """One LoRA of one denoiser.

    Attributes:
        component: the denoiser's name in the pipeline.
        layers: updates by the names of their modules.
        errors: what truncation left out of each layer's update, ``||rest|| / ||dW||``.
        left_out: norms of the changes that no LoRA holds, such as those of biases and norms, by parameter.
    """

    component: str
    layers: Mapping[str, LowRank]
    errors: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, float] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many numbers the LoRA holds."""
        return sum(layer.down.numel() + layer.up.numel() for layer in self.layers.values())

    @property
    def error(self) -> float:
        """What all layers and parameters lack, as a share of the whole change, in Frobenius norm."""
        kept = sum(layer.norm() ** 2 for layer in self.layers.values())
        lost = sum(value**2 for value in self.left_out.values())
        for name, error in self.errors.items():  # ||rest||² = error² / (1 - error²) ||kept||²
            lost += error**2 / max(1 - error**2, 1e-12) * self.layers[name].norm() ** 2
        return (lost / (kept + lost)) ** 0.5 if kept + lost else 0.0


@torch.no_grad()
def bake_weights(
    pipe: Any,
    aligned: Any,
    lam: LamLike,
    *,
    component: str | None = None,
    rank: int | None = None,
    energy: float | None = None,
) -> LoraUpdate:
    """One LoRA whose update is ``sum_k lam_k dtheta_k``; the pipe is left as it was.

    Without ``rank`` and ``energy`` LoRA anchors are baked exactly (the ranks of several add up), and dense updates are
    truncated at `ENERGY`.

    Args:
        pipe: the reference pipeline.
        aligned: the anchor, or a mapping of several, as :func:`deradiff.realign` takes them.
        lam: one lam an anchor.
        component: the denoiser, where it can't be inferred.
        rank: the most that a layer may have.
        energy: share of each layer's ``||dW||²`` to keep, in (0, 1].

    Raises:
        BakeError: an anchor that no LoRA can stand for, more than one lam an anchor, or an unusable rank or energy.
        AnchorError, RealignError, LamError: as :func:`deradiff.realign`.
    """
    if rank is not None and rank < 1:
        raise BakeError(f"rank is {rank}; expected 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise BakeError(f"energy is {energy}; expected a share of the update's squared norm, above 0 and at most 1")
    with _opened(pipe, aligned, lam, component) as (hook, lams):
        left_out: dict[str, float] = {}
        layers: dict[str, LowRank] = {}
        errors: dict[str, float] = {}
        for name, update in _updates(hook, lams, left_out):
            if isinstance(update, Tensor):
                keep = ENERGY if rank is None and energy is None else energy
                layers[name], errors[name] = factorize(update, rank=rank, energy=keep)
            elif energy is not None or (rank is not None and update.rank > rank):
                layers[name], errors[name] = truncate(update, rank=rank, energy=energy)
            elif any(lams):
                layers[name] = update
        return LoraUpdate(component=hook.component, layers=layers, errors=errors, left_out=left_out)


@torch.no_grad()
def interpolate_weights(
    pipe: Any, aligned: Any, lam: LamLike, *, component: str | None = None
) -> tuple[str, nn.Module]:
    """The denoiser's name, and a copy of it at ``theta_ref + sum_k lam_k (theta_k - theta_ref)``.

    Args:
        pipe: the reference pipeline.
        aligned: full anchors, or LoRAs.
        lam: one lam an anchor.
        component: the denoiser, where it can't be inferred.

    Raises:
        BakeError, AnchorError, RealignError, LamError: as :func:`bake_weights`.
    """
    with _opened(pipe, aligned, lam, component) as (hook, lams):
        denoiser: Any = hook.denoiser  # a ModelMixin of diffusers
        network: Any = type(denoiser).from_config(denoiser.config)
        names = set(network.state_dict())
        plain = {plain_name(name): value for name, value in hook.denoiser.state_dict().items()}
        if isinstance(hook.ensemble, InterpolatedNetworks):
            plain |= hook.ensemble.at(lams)
        else:
            for name, update in _updates(hook, lams, {}):
                dense = update.dense() if isinstance(update, LowRank) else update
                plain[f"{name}.weight"] = plain[f"{name}.weight"] + dense.to(plain[f"{name}.weight"])
        network.load_state_dict({name: value for name, value in plain.items() if name in names})
        return hook.component, network.to(next(hook.denoiser.parameters()).dtype).eval()


@contextmanager
def _opened(
    pipe: Any, aligned: Any, lam: LamLike, component: str | None
) -> Generator[tuple[DenoiserHook, list[float]]]:
    """The one denoiser of a pipe with its anchors loaded, and one lam an anchor.

    Raises:
        BakeError: several denoisers, or several lams an anchor.
    """
    with realign(pipe, aligned, lam, component=component, policy=Weights()) as handle:
        hook, *others = hooks_of(handle)
        if others:
            raise BakeError(f"{', '.join(handle.components)} are realigned; bake one of them: give component=")
        if hook.lams.count > 1:
            raise BakeError("a bake stands for one lam an anchor; give one number")
        yield hook, [values[0] for values in hook.lams.values]


def _updates(
    hook: DenoiserHook, lams: list[float], left_out: dict[str, float]
) -> Iterator[tuple[str, LowRank | Tensor]]:
    """Each layer's update at these lams, as factors where the anchors have them."""
    if isinstance(hook.ensemble, InterpolatedNetworks):
        yield from _of_networks(hook.denoiser, hook.ensemble, lams, left_out)
    else:
        assert isinstance(hook.ensemble, InterpolatedAdapters)
        for name, layer in hook.denoiser.named_modules():
            if isinstance(layer, BaseTunerLayer):
                of_layer = [
                    (one, lam) for one, lam in zip(hook.ensemble.names, lams, strict=True) if one in adapters_of(layer)
                ]
                if of_layer:
                    yield plain_name(name), _of_adapters(name, layer, *zip(*of_layer, strict=True))


def _of_adapters(name: str, layer: Any, adapters: tuple[str, ...], lams: tuple[float, ...]) -> LowRank | Tensor:
    updates = [_of_adapter(name, layer, adapter) for adapter in adapters]
    factors = [update for update in updates if isinstance(update, LowRank)]
    if len(factors) == len(updates):
        return weighted_sum(factors, lams)
    dense = [update.dense() if isinstance(update, LowRank) else update for update in updates]
    return sum((lam * update for lam, update in zip(lams[1:], dense[1:], strict=True)), start=lams[0] * dense[0])


def _of_adapter(name: str, layer: Any, adapter: str) -> LowRank | Tensor:
    """One adapter's update of a layer at lam = 1."""
    if getattr(layer, "lora_variant", {}).get(adapter):
        raise BakeError(
            f"the anchor is a LoRA variant (DoRA or kin) at {name}, whose update isn't linear in its weights; no LoRA "
            "stands for a share of it"
        )
    if not isinstance(layer, LoraLayer):  # LoHa, LoKr
        return layer.get_delta_weight(adapter).float()
    factors: Any = layer  # whose modules have the adapters' names as keys
    down, up = factors.lora_A[adapter], factors.lora_B[adapter]
    if getattr(up, "bias", None) is not None:
        raise BakeError(f"the anchor's LoRA has biases at {name}, which diffusers' and kohya's layouts can't hold")
    return LowRank(down.weight.detach().float(), up.weight.detach().float() * layer.scaling[adapter])


def _of_networks(
    denoiser: nn.Module, ensemble: InterpolatedNetworks, lams: list[float], left_out: dict[str, float]
) -> Iterator[tuple[str, Tensor]]:
    reference = weights_of(denoiser)
    layers = {
        plain_name(f"{name}.weight")
        for name, module in denoiser.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    for name, value in reference.items():
        if not value.is_floating_point():
            continue
        base = value.detach().float()
        change = torch.zeros_like(base)
        for lam, anchor in zip(lams, ensemble.anchors, strict=True):
            change += lam * (anchor[name].detach().to(base.device).float() - base)
        size = float(change.norm())
        if name in layers and size:
            yield name.removesuffix(".weight"), change
        elif size:
            left_out[name] = size

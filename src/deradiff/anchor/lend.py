"""Lending: the denoiser itself runs with another model's weights in its slots.

What a pipeline changes on its denoiser (attention processors, image-prompt layers, FreeU, a style LoRA, layer-skip
hooks) then holds for every model by construction, and nothing needs to be copied to a second module.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from diffusers.hooks.group_offloading import _is_group_offload_enabled
from torch import Tensor, nn

from deradiff.errors import RealignError

_WRAPPERS = ("_orig_mod.", "base_layer.")  # torch.compile's, PEFT's


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``torch.compile(network)``, or the network itself."""
    return getattr(module, "_orig_mod", module)


def plain_name(name: str) -> str:
    """A weight's name without what wrappers put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def slots(denoiser: nn.Module) -> dict[str, tuple[MutableMapping[str, Any], str]]:
    """Where each parameter and buffer of a denoiser is kept: plain name -> (store, key)."""
    return {
        plain_name(f"{prefix}.{key}" if prefix else key): (store, key)
        for prefix, module in denoiser.named_modules()
        for store in (module._parameters, module._buffers)
        for key, value in store.items()
        if value is not None
    }


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and buffers by plain name."""
    return {name: store[key] for name, (store, key) in slots(module).items()}


@contextmanager
def lent(denoiser: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the block the denoiser has these weights in its slots; slots without one keep their own.

    Raises:
        RealignError: the denoiser's weights are streamed in layer by layer, which would overwrite what is lent.
    """
    refuse_streaming(denoiser)
    places = slots(denoiser)
    saved = [(*places[name], places[name][0][places[name][1]]) for name in weights if name in places]
    try:
        for name, value in weights.items():
            if name in places:
                store, key = places[name]
                store[key] = value
        yield
    finally:
        for store, key, value in saved:
            store[key] = value


def refuse_streaming(denoiser: nn.Module) -> None:
    """Raise RealignError under sequential or group offload, where layers fetch the reference's weights themselves."""
    if any(parameter.is_meta for parameter in denoiser.parameters()) or _is_group_offload_enabled(denoiser):
        raise RealignError(
            "sequential or group offload fetches the reference's weights layer by layer, so a full anchor can't be run "
            "through it; use pipe.enable_model_cpu_offload(), or an anchor in LoRA form"
        )

"""The modules of a denoiser as realignment needs them: adapter layers, parameter slots, and what can't be shared.

SDXL's UNet with a LoRA has 7,530 modules, and walking them takes as long as the network on a GPU. So they are looked
through once a run of the pipeline; within a run a call only checks what a callback could have changed (`_marker`).
"""

# pyright: reportPrivateUsage=false
# torch, PEFT and diffusers keep parameters, adapters and hooks under private names.

from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from diffusers.hooks.group_offloading import _is_group_offload_enabled
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from deradiff.compat import ATTENTION_STORES, HOOK_REGISTRY, LAYERWISE_CASTING

_WRAPPERS = ("_orig_mod.", "base_layer.")  # torch.compile's, PEFT's

Slot = tuple[MutableMapping[str, Any], str]


class ModuleTree:
    """A denoiser and what a look through its modules finds.

    Attributes:
        denoiser: the network.
        version: grows when the modules have changed.
        adapter_layers: those of PEFT, each with the names of its adapters.
        slots: where each parameter and buffer is kept: plain name -> (store, key).
        step_caches: names of the step caches that are enabled (diffusers' stateful hooks).
        map_stores: names of the attention processors that keep attention maps between calls.
        streams_weights: whether layers fetch their weights themselves, by sequential or group offload.
        casts_weights: whether layers cast their weights to and fro (diffusers' layerwise casting).
        fuses_projections: whether attention runs on projections that were fused, and not on the layers of its own.
        replaced_forwards: names of modules whose ``forward`` somebody has replaced.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        self.denoiser, self.version, self._running = denoiser, 0, False
        self._walk()
        self._inspect()

    def refresh(self) -> None:
        """Look through the modules again where they may have changed; call before anything else."""
        if self._running and self._marker() == self._known:
            return
        if any(tuple(children.values()) != known for children, known in self._children):
            self._walk()
        self._inspect()

    @contextmanager
    def running(self) -> Generator[None]:
        """A run of the pipeline, within which only callbacks change the denoiser."""
        self.refresh()
        before, self._running = self._running, True
        try:
            yield
        finally:
            self._running = before

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by plain name."""
        return {name: store[key] for name, (store, key) in self.slots.items()}

    def _walk(self) -> None:
        modules = list(self.denoiser.modules())
        self.version += 1
        layers = [module for module in modules if isinstance(module, BaseTunerLayer)]
        self.adapter_layers = [(layer, adapters_of(layer)) for layer in layers]
        self.slots = parameter_slots(self.denoiser)
        self._states: list[dict[str, Any]] = [vars(module) for module in modules]
        self._stores = [module._parameters for module in modules if module._parameters]
        self._children = [(one._modules, tuple(one._modules.values())) for one in modules if one._modules]
        self._attention = [module for module in modules if "processor" in {*vars(module), *module._modules}]
        lists = [child for child in self.denoiser.children() if isinstance(child, nn.ModuleList)]
        self._blocks = [vars(self.denoiser), *(vars(block) for blocks in lists for block in blocks)]

    def _inspect(self) -> None:
        """What can change on the same modules."""
        registries = [state[HOOK_REGISTRY] for state in self._states if HOOK_REGISTRY in state]
        self.step_caches = sorted(
            {type(hook).__name__ for registry in registries for hook in registry.hooks.values() if hook._is_stateful}
        )
        processors = [attention.processor for attention in self._attention]
        self.map_stores = sorted(
            {type(one).__name__ for one in processors if any(hasattr(one, name) for name in ATTENTION_STORES)}
        )
        meta = any(value.is_meta for store in self._stores for value in store.values() if value is not None)
        self.streams_weights = meta or (bool(registries) and _is_group_offload_enabled(self.denoiser))
        hooks = [hook for registry in registries for hook in registry.hooks.values()]
        self.casts_weights = any(type(hook).__name__ == LAYERWISE_CASTING for hook in hooks)
        self.fuses_projections = any(map(_is_fused, self._attention, processors))
        self.replaced_forwards = self._find_replaced_forwards()
        self._known = self._marker()

    def _find_replaced_forwards(self) -> list[str]:
        """Modules with a ``forward`` of their own that neither accelerate, diffusers nor torch.compile gave them."""
        foreign = [state for state in self._states if "forward" in state and not _is_known_wrapper(state)]
        if not foreign:
            return []
        return sorted(
            name for name, module in self.denoiser.named_modules() if any(vars(module) is one for one in foreign)
        )

    def _marker(self) -> tuple[Any, ...]:
        """What a callback changes that loads or unloads an adapter, or turns a step cache on or off."""
        adapters: dict[str, Any] = getattr(self.denoiser, "peft_config", {})
        hooks = [tuple(state[HOOK_REGISTRY].hooks.values()) for state in self._blocks if HOOK_REGISTRY in state]
        return tuple(adapters), tuple(adapters.values()), hooks


def adapters_of(layer: BaseTunerLayer) -> frozenset[str]:
    """Names of the adapters that a layer of PEFT holds."""
    return frozenset(layer._all_available_adapter_names())


def _is_fused(attention: nn.Module, processor: Any) -> bool:
    """Whether attention runs on fused projections; the older class keeps its flag when they are unfused."""
    flag = type(attention).__name__ != "Attention" and getattr(attention, "fused_projections", False)
    return flag or "Fused" in type(processor).__name__


def _is_known_wrapper(state: Mapping[str, Any]) -> bool:
    known = "_hf_hook" in state or HOOK_REGISTRY in state
    return known or hasattr(state["forward"], "_torchdynamo_orig_callable")


def parameter_slots(module: nn.Module) -> dict[str, Slot]:
    """Where each parameter and buffer of a network is kept: plain name -> (store, key)."""
    return {
        plain_name(f"{prefix}.{key}" if prefix else key): (store, key)
        for prefix, part in module.named_modules()
        for store in (part._parameters, part._buffers)
        for key, value in store.items()
        if value is not None
    }


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and buffers by plain name."""
    return {name: store[key] for name, (store, key) in parameter_slots(module).items()}


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside ``torch.compile(network)``, or the network itself."""
    return getattr(module, "_orig_mod", module)


def plain_name(name: str) -> str:
    """A weight's name without what wrappers put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name

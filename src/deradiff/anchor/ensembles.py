"""How the models of one denoiser are held, and run: the reference is model 0, the anchors 1..K.

- toggle: one network call a model, LoRA anchors switched on and off (`AdapterToggle`);
- separate: one network call a model, a full anchor's weights swapped into the denoiser (`SwappedWeights`);
- batched: all models in one call, each row of a mixed batch routed through its model's LoRA (`BatchedAdapters`);
- interpolated: one network whose weights depend on lam (`InterpolatedAdapters`, `InterpolatedNetworks`), for the policy
  that evaluates nothing else.

In every ensemble the denoiser itself runs. So what a pipeline changes on it (attention processors, image-prompt layers,
FreeU, a style LoRA, layer-skip hooks) holds for every model by construction.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deradiff.anchor.adapters import active_adapters, adapter_layers, check_no_others, scaled, toggled
from deradiff.anchor.check import check_swappable, quantised_weight
from deradiff.anchor.inputs import DenoiserInputs, take_rows
from deradiff.anchor.load import Anchor
from deradiff.anchor.module_tree import ModuleTree, weights_of
from deradiff.anchor.state import StateCache, has_state, is_state, state_in
from deradiff.errors import AnchorError, RealignError
from deradiff.mixture import coefficients, combine

Ensemble = Literal["auto", "toggle", "separate", "batched"]


class ModelEnsemble(Protocol):
    """All models of one denoiser."""

    tree: ModuleTree

    def predict(self, inputs: DenoiserInputs, which: Sequence[int]) -> dict[int, Any]:
        """Outputs of the models ``which``; 0 is the reference, 1..K the anchors."""
        ...

    def on_run_end(self) -> None:
        """A run of the pipeline ended."""
        ...


class Network(Protocol):
    """One model of a sequential ensemble."""

    def run(self, inputs: DenoiserInputs) -> Any:
        """The model's output."""
        ...

    def on_run_end(self) -> None:
        """A run of the pipeline ended."""
        ...


def build_ensemble(component: str, denoiser: nn.Module, anchors: Sequence[Anchor], ensemble: Ensemble) -> ModelEnsemble:
    """Hold the reference and its anchors in one of the ways of :data:`Ensemble`.

    Raises:
        AnchorError: the anchors can't be held so.
    """
    tree = ModuleTree(denoiser)
    adapters, modules = _kinds(anchors)
    if ensemble in ("toggle", "batched") and modules:
        raise AnchorError(f"ensemble={ensemble!r} needs a LoRA anchor, but the anchor of {component} is a full network")
    if ensemble == "batched":
        if reason := why_not_batchable(denoiser, adapters):
            raise AnchorError(f"ensemble='batched' can't be used: {reason}; use ensemble='toggle'")
        return BatchedAdapters(tree, adapters)
    networks: list[Network] = [AdapterToggle(tree, on=[], off=adapters)]
    for anchor in anchors:
        if anchor.module is not None:
            networks.append(SwappedWeights(tree, weights_of(anchor.module), off=adapters))
        else:
            off = [name for name in adapters if name != anchor.adapter]
            networks.append(AdapterToggle(tree, on=[str(anchor.adapter)], off=off))
    return SequentialEnsemble(tree, networks)


def build_interpolated(denoiser: nn.Module, anchors: Sequence[Anchor]) -> "Interpolated":
    """One network at weights interpolated between the reference and its anchors.

    Raises:
        AnchorError: full networks and LoRAs together, or full networks that are quantised.
    """
    tree = ModuleTree(denoiser)
    adapters, modules = _kinds(anchors)
    if modules and adapters:
        raise AnchorError("policy=Weights() takes anchors of one kind, got full networks and LoRAs together")
    if modules and (quantised := quantised_weight(denoiser)):
        raise AnchorError(
            f"policy=Weights() can't interpolate quantised weights ({quantised}); leave the policy out, or give the "
            "anchor as a LoRA"
        )
    return InterpolatedNetworks(tree, modules) if modules else InterpolatedAdapters(tree, adapters)


def _kinds(anchors: Sequence[Anchor]) -> tuple[list[str], list[nn.Module]]:
    """Names of the LoRAs, and the full networks."""
    adapters = [anchor.adapter for anchor in anchors if anchor.adapter is not None]
    return adapters, [anchor.module for anchor in anchors if anchor.module is not None]


class AdapterToggle:
    """The denoiser with some of its adapters on and others off (the reference: all anchors' adapters off)."""

    def __init__(self, tree: ModuleTree, *, on: Collection[str], off: Collection[str]) -> None:
        self.tree, self.on, self.off = tree, on, off

    def run(self, inputs: DenoiserInputs) -> Any:
        """Run the denoiser with the adapters so, and put them back."""
        with toggled(self.tree, on=self.on, off=self.off):
            return inputs.run()

    def on_run_end(self) -> None:
        """Nothing to do: adapters travel with the denoiser."""


class SwappedWeights:
    """The denoiser with another network's weights in its slots, on the device where its inputs are.

    Adapters ``off`` are those of other anchors, or merged into these weights.
    """

    def __init__(self, tree: ModuleTree, weights: Mapping[str, Tensor], *, off: Collection[str] = ()) -> None:
        self.tree, self.weights, self.off = tree, dict(weights), off
        self._originals = dict(weights)
        self.home = {name: value.device for name, value in weights.items()}

    def run(self, inputs: DenoiserInputs) -> Any:
        """Move the weights where the inputs are, swap them in, and run the denoiser."""
        self._follow_dtype()
        self._move(inputs.device)
        with toggled(self.tree, on=[], off=self.off), swap_weights(self.tree, self.weights):
            return inputs.run()

    def _follow_dtype(self) -> None:
        """Cast the weights as the reference's were (``pipe.to(torch.bfloat16)``); the user's own stay as they are."""
        first = next(name for name, value in self._originals.items() if value.is_floating_point())
        store, key = self.tree.slots[first]
        if store[key].dtype == self.weights[first].dtype:
            return
        for name, value in self._originals.items():
            if name in self.tree.slots:
                store, key = self.tree.slots[name]
                self.weights[name] = nn.Parameter(value.detach().to(store[key].dtype), requires_grad=False)

    def _move(self, device: torch.device) -> None:
        if next(iter(self.weights.values())).device != device:  # they move together
            for value in self.weights.values():
                value.data = value.data.to(device)

    def on_run_end(self) -> None:
        """Under CPU offload weights leave the accelerator after the run, as the reference's do."""
        if hasattr(self.tree.denoiser, "_hf_hook"):
            for name, value in self.weights.items():
                value.data = value.data.to(self.home[name])


@contextmanager
def swap_weights(tree: ModuleTree, weights: Mapping[str, Tensor]) -> Generator[None]:
    """Inside the block the denoiser has these weights in its slots; slots without one keep their own.

    Raises:
        RealignError: layers fetch or cast their weights themselves, which would overwrite or change what is swapped in.
    """
    check_swappable(tree)
    slots = tree.slots
    saved: list[tuple[Any, str, Any]] = []
    try:
        for name, value in weights.items():
            if name in slots:
                store, key = slots[name]
                saved.append((store, key, store[key]))
                store[key] = value
        yield
    finally:
        for store, key, value in saved:
            store[key] = value


class SequentialEnsemble:
    """One network call a model."""

    def __init__(self, tree: ModuleTree, networks: Sequence[Network]) -> None:
        self.tree, self.networks, self.states = tree, networks, StateCache()

    def predict(self, inputs: DenoiserInputs, which: Sequence[int]) -> dict[int, Any]:
        """Run models one after another, each with its own key-value caches.

        Where there is such state every model runs, asked for or not, so that lam may change in the middle of a run.
        """
        if not has_state(inputs.kwargs):
            return self._commit_outputs({index: self.networks[index].run(inputs) for index in which})
        states = state_in(inputs.kwargs)
        which = range(len(self.networks))
        forks = {index: {n: self.states.fork(s, index) if index else s for n, s in states.items()} for index in which}
        outputs: dict[int, Any] = {}
        for index in which:
            outputs[index] = self.networks[index].run(inputs.replace(**forks[index]))
            for name, state in states.items():
                if index:
                    self.states.commit(state, index, forks[index][name])
        return self._commit_outputs(outputs)

    def on_run_end(self) -> None:
        """Forget the run's caches and pass its end on."""
        self.states.clear()
        for network in self.networks:
            network.on_run_end()

    def _commit_outputs(self, outputs: dict[int, Any]) -> dict[int, Any]:
        """Keep the state that models return; the pipeline is handed the reference's."""
        first, *rest = outputs
        states = _states_out(outputs[first])
        if not states:
            return outputs
        for index in rest:
            for state, fork in zip(states, _states_out(outputs[index]), strict=True):
                self.states.commit(state, index, fork)
            outputs[index] = _with_states(outputs[index], outputs[first])
        return outputs


def _states_out(output: Any) -> list[Any]:
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else ()
    return [item for item in items if is_state(item)]


def _with_states(output: Any, reference: Any) -> Any:
    """An output that hands the pipeline the reference's state, under which all forks are kept."""
    if not _states_out(output):
        return output
    if isinstance(output, Mapping):
        fields = {key: reference[key] if is_state(item) else item for key, item in output.items()}
        kind: Any = type(output)  # a dataclass of diffusers, which takes its fields by name
        return kind(**fields)
    return tuple(theirs if is_state(item) else item for item, theirs in zip(output, reference, strict=True))


class BatchedAdapters:
    """All models in a single forward: rows of the reference and of each anchor's LoRA side by side."""

    def __init__(self, tree: ModuleTree, names: Sequence[str]) -> None:
        self.tree, self.names = tree, ["__base__", *names]  # PEFT's name for "no adapter"
        self._hooks: list[RemovableHandle] = []
        self._hooked_version = 0
        self._routes: tuple[int, list[str]] | None = None  # rows of a model, and the adapter of each copy of a row

    def predict(self, inputs: DenoiserInputs, which: Sequence[int]) -> dict[int, Any]:
        """Stack the inputs, route each row through its model's adapter, and take the outputs apart.

        The copies of a row stand side by side, so that networks which split the batch by branches of guidance (PAG) or
        fold frames into it still see the order they expect.
        """
        if has_state(inputs.kwargs):
            raise RealignError(
                "ensemble='batched' can't split a key-value cache between models; realign with ensemble='toggle'"
            )
        rows, copies = inputs.rows, len(which)
        stacked = inputs.repeat(copies)
        check_no_others(self.tree, self.names[1:])
        self._hook_layers()
        self._routes = rows, [self.names[index] for index in which]
        try:
            with toggled(self.tree, on=self.names[1:], off=[]):
                output = stacked.run()
        finally:
            self._routes = None
        parts = [slice(copy, None, copies) for copy in range(copies)]
        return {
            index: take_rows(output, rows * copies, part, lists=True) for index, part in zip(which, parts, strict=True)
        }

    def on_run_end(self) -> None:
        """Take the hooks off the layers."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._hooked_version = [], 0

    def _hook_layers(self) -> None:
        """Hooks on all adapter layers, which stay until the run of the pipeline ends."""
        if self._hooked_version != self.tree.version:
            self.on_run_end()
            layers = [layer for layer, _ in self.tree.adapter_layers if isinstance(layer, nn.Module)]
            self._hooks = [layer.register_forward_pre_hook(self._route, with_kwargs=True) for layer in layers]
            self._hooked_version = self.tree.version

    def _route(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if self._routes is None:
            return None
        rows, names = self._routes
        size, stacked = len(args[0]), rows * len(names)
        spatial = args[0].ndim > 2
        if size == stacked or (spatial and size < stacked and size % len(names) == 0):  # PAG: some branches of guidance
            routed = [*names] * (size // len(names))
        elif spatial and size % stacked == 0:  # frames or views folded into the batch
            routed = [name for _ in range(rows) for name in names for _ in range(size // stacked)]
        else:  # tokens of several rows, gathered by experts or laid end to end
            raise RealignError(
                f"ensemble='batched' needs every layer to see each row of the batch, but {type(layer).__name__} got "
                f"{size} for {stacked}; realign with ensemble='toggle'"
            )
        return args, {**kwargs, "adapter_names": routed}


def why_not_batchable(denoiser: nn.Module, names: Sequence[str]) -> str | None:
    """Why the anchors' LoRAs can't share one forward, or None where they can."""
    others = active_adapters(denoiser) - set(names)
    if others:
        return f"the adapter {', '.join(sorted(others))} is active too, and PEFT routes a row through one adapter only"
    for name in names:
        for layer in adapter_layers(denoiser, name):
            if not hasattr(layer, "_mixed_batch_forward"):
                return f"the adapter {name} has layers of type {type(layer).__name__}, which can't be mixed in a batch"
            if getattr(layer, "lora_variant", {}).get(name):
                return f"the adapter {name} is a LoRA variant (DoRA or kin), which can't be mixed in a batch"
    return None


class Interpolated(ABC):
    """One network at theta_ref + sum_k lam_k (theta_k - theta_ref), so one call a step.

    A baseline of realignment and, on small models up to lam of about 2, as good; it takes one lam for the whole batch.
    """

    tree: ModuleTree

    @abstractmethod
    def predict(self, inputs: DenoiserInputs, lams: Sequence[float]) -> Any:
        """Output of the network at the interpolated weights, one lam an anchor."""

    def on_run_end(self) -> None:  # noqa: B027  (adapters travel with the denoiser: nothing to do)
        """A run of the pipeline ended."""


class InterpolatedAdapters(Interpolated):
    """LoRA anchors: each update scaled by its lam."""

    def __init__(self, tree: ModuleTree, names: Sequence[str]) -> None:
        self.tree, self.names = tree, names

    def predict(self, inputs: DenoiserInputs, lams: Sequence[float]) -> Any:
        """Run with each adapter at its lam; adapters at lam = 0 are off, so that 0 is the reference bit for bit."""
        scales = {name: lam for name, lam in zip(self.names, lams, strict=True) if lam}
        off = [name for name in self.names if name not in scales]
        with toggled(self.tree, on=list(scales), off=off), scaled(self.tree, scales):
            return inputs.run()


class InterpolatedNetworks(Interpolated):
    """Full anchors: a further set of weights is filled anew when a lam changes."""

    def __init__(self, tree: ModuleTree, modules: Sequence[nn.Module]) -> None:
        self.tree = tree
        self.anchors = [weights_of(module) for module in modules]
        self.mixture = SwappedWeights(tree, {name: value.detach().clone() for name, value in self.anchors[0].items()})
        self.filled: tuple[float, ...] | None = None

    def predict(self, inputs: DenoiserInputs, lams: Sequence[float]) -> Any:
        """Run at the interpolated weights; the reference at lam = 0 is itself, bit for bit."""
        if not any(lams):
            return inputs.run()
        self.at(lams)
        return self.mixture.run(inputs)

    def at(self, lams: Sequence[float]) -> Mapping[str, Tensor]:
        """The interpolated weights by plain name, one lam an anchor; filled anew by the next other lams."""
        if self.filled != tuple(lams):
            self._fill(lams)
            self.filled = tuple(lams)
        return self.mixture.weights

    def on_run_end(self) -> None:
        """Pass the end of a run on."""
        self.mixture.on_run_end()

    @torch.no_grad()
    def _fill(self, lams: Sequence[float]) -> None:
        reference = self.tree.weights()
        for name, target in self.mixture.weights.items():
            if target.is_floating_point():
                models = [reference[name], *(anchor[name] for anchor in self.anchors)]
                target.copy_(combine([value.to(target.device, target.dtype) for value in models], coefficients(lams)))

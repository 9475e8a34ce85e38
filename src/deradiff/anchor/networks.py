"""Holding the reference and its anchors one network call each: weights lent, adapters switched.

Whatever the way, the models of one denoiser are numbered: 0 is the reference, 1..K the anchors.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from deradiff.anchor.adapters import switched
from deradiff.anchor.inputs import fresh, tensors
from deradiff.anchor.lend import lent
from deradiff.anchor.state import Twins, has_state, is_state, state_in

Call = Callable[..., Any]


class Network(Protocol):
    """One model: the reference, or an anchor."""

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The model's output; ``call`` runs the denoiser itself."""
        ...

    def rest(self) -> None:
        """A run of the pipeline ended."""
        ...


class Adapted:
    """The denoiser with some of its adapters on and others off (the reference: all anchors' adapters off)."""

    def __init__(self, denoiser: nn.Module, *, on: Collection[str], off: Collection[str]) -> None:
        self.denoiser, self.on, self.off = denoiser, on, off

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the denoiser with the adapters so, and put them back."""
        with switched(self.denoiser, on=self.on, off=self.off):
            return call(*args, **kwargs)

    def rest(self) -> None:
        """Nothing to do: adapters travel with the denoiser."""


class Lent:
    """The denoiser with another network's weights lent to it, on the device where its inputs are.

    Adapters ``off`` are those of other anchors, or merged into these weights.
    """

    def __init__(self, denoiser: nn.Module, weights: Mapping[str, Tensor], *, off: Collection[str] = ()) -> None:
        self.denoiser, self.weights, self.off = denoiser, dict(weights), off
        self.home = {name: value.device for name, value in weights.items()}

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Move the weights where the inputs are, lend them, and run the denoiser."""
        device = next(tensors([list(args), kwargs])).device
        for value in self.weights.values():
            if value.device != device:
                value.data = value.data.to(device)
        with switched(self.denoiser, on=[], off=self.off), lent(self.denoiser, self.weights):
            return call(*args, **kwargs)

    def rest(self) -> None:
        """Under CPU offload weights leave the accelerator after the run, as the reference's do."""
        if hasattr(self.denoiser, "_hf_hook"):
            for name, value in self.weights.items():
                value.data = value.data.to(self.home[name])


class Models(Protocol):
    """All models of one denoiser."""

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], which: Sequence[int]) -> dict[int, Any]:
        """Outputs of the models asked for."""
        ...

    def rest(self) -> None:
        """A run of the pipeline ended."""
        ...


class InTurn:
    """One network call a model."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks = networks
        self.twins = Twins()

    def run(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], which: Sequence[int]) -> dict[int, Any]:
        """Run models one after another, each on fresh containers and with its own key-value caches.

        Where there is such state every model runs, asked for or not, so that lam may change in the middle of a run.
        """
        states = state_in(kwargs)
        which = range(len(self.networks)) if has_state(kwargs) else which
        own = {index: {n: self.twins.of(s, index) if index else s for n, s in states.items()} for index in which}
        outputs: dict[int, Any] = {}
        for index in which:
            shared = {name: value for name, value in kwargs.items() if name not in states}
            outputs[index] = self.networks[index].run(call, fresh(args), {**fresh(shared), **own[index]})
            for name, state in states.items():
                if index:
                    self.twins.keep(state, index, own[index][name])
        first = outputs[which[0]]
        for index in which[1:]:
            for state, twin in zip(_states_out(first), _states_out(outputs[index]), strict=True):
                self.twins.keep(state, index, twin)
            outputs[index] = _with_states(outputs[index], first)
        return outputs

    def rest(self) -> None:
        """Forget the run's caches and pass its end on."""
        self.twins.forget()
        for network in self.networks:
            network.rest()


def _states_out(output: Any) -> list[Any]:
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple) else ()
    return [item for item in items if is_state(item)]


def _with_states(output: Any, reference: Any) -> Any:
    """An output that hands the pipeline the reference's state, under which all twins are kept."""
    if not _states_out(output):
        return output
    if isinstance(output, Mapping):
        fields = {key: reference[key] if is_state(item) else item for key, item in output.items()}
        return type(output)(**fields)  # pyright: ignore[reportCallIssue]
    return tuple(theirs if is_state(own) else own for own, theirs in zip(output, reference, strict=True))

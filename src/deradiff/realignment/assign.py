"""Which anchor belongs to which denoiser, and how it is loaded."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from deradiff.anchor.adapters import adapter_names
from deradiff.anchor.check import check_same_network
from deradiff.anchor.load import Anchor, distance, hold_adapter, hold_lora, hold_module, load_network
from deradiff.anchor.location import Location
from deradiff.anchor.module_tree import unwrapped
from deradiff.anchor.source import Kind, resolve_anchor
from deradiff.errors import AnchorError, DeradiffError

logger = logging.getLogger("deradiff")

LONE = "aligned"  # the name of an anchor that comes alone
AnchorLike = nn.Module | str | Path


def named_anchors(pipe_denoisers: Mapping[str, nn.Module], aligned: Any) -> list[tuple[str, str | None, AnchorLike]]:
    """Read the user's ``aligned`` as a list of (anchor name, component or None, anchor).

    Raises:
        AnchorError: an empty mapping, or something that is no anchor.
    """
    entries: list[tuple[str, str | None, AnchorLike]]
    if not isinstance(aligned, Mapping):
        entries = [(LONE, None, aligned)]
    elif set(aligned) & set(pipe_denoisers):
        if unknown := sorted(set(aligned) - set(pipe_denoisers)):
            raise AnchorError(
                f"{unknown} are no denoisers of the pipe, while other keys are; the keys of a mapping are either all "
                f"denoisers (of {sorted(pipe_denoisers)}) or all names of your own"
            )
        entries = [(LONE, key, value) for key, value in aligned.items()]
    else:
        entries = [(key, None, value) for key, value in aligned.items()]
    entries = [part for entry in entries for part in _of_pipeline(pipe_denoisers, *entry)]
    if not entries:
        raise AnchorError("got an empty mapping of anchors; give at least one aligned model")
    for name, _, anchor in entries:
        if not isinstance(anchor, nn.Module | str | Path):
            raise AnchorError(
                f"anchor {name!r} is {type(anchor).__name__}; expected a network, a pipeline, a folder, a hub id or "
                "the name of a LoRA loaded on the pipe"
            )
    return [(n, key, unwrapped(anchor) if isinstance(anchor, nn.Module) else anchor) for n, key, anchor in entries]


def _of_pipeline(
    pipe_denoisers: Mapping[str, nn.Module], name: str, key: str | None, anchor: Any
) -> list[tuple[str, str | None, Any]]:
    """A pipeline as its denoisers; those that it shares with the reference are no anchors."""
    components = getattr(anchor, "components", None)
    if isinstance(anchor, nn.Module) or not isinstance(components, Mapping):
        return [(name, key, anchor)]
    there = {part: components[part] for part in ([key] if key else pipe_denoisers) if components.get(part) is not None}
    if not there:
        raise AnchorError(
            f"the anchor is a {type(anchor).__name__} without {' or '.join(pipe_denoisers)}, the denoisers to realign"
        )
    other = {part: network for part, network in there.items() if unwrapped(network) is not pipe_denoisers[part]}
    return [(name, part, network) for part, network in (other or there).items()]


def components_for(networks: Mapping[str, nn.Module], anchor: AnchorLike, location: Location) -> list[str]:
    """The denoisers an anchor was made for.

    Raises:
        AnchorError: it is ambiguous, or fits none.
    """
    names = list(networks)
    if isinstance(anchor, str):
        loaded = [name for name in names if anchor in adapter_names(networks[name])]
        if loaded:
            return loaded
    if isinstance(anchor, nn.Module):
        return [_closest(networks, anchor)]
    source = resolve_anchor(anchor, names, location)
    if source.kind is Kind.PIPELINE:
        return [name for name in names if source.holds(name)]
    if len(names) == 1:
        return names
    raise AnchorError(
        f"{anchor} doesn't say which of {names} it was made for; pass component=, or a mapping from component names"
    )


def _closest(networks: Mapping[str, nn.Module], module: nn.Module) -> str:
    fitting: dict[str, float] = {}
    refusals: list[DeradiffError] = []
    for name, denoiser in networks.items():
        try:
            check_same_network(denoiser, module, name)
        except AnchorError as refusal:
            refusals.append(refusal)
        else:
            fitting[name] = distance(denoiser, module) if len(networks) > 1 else 0.0
    if not fitting:
        raise refusals[0]
    first, *others = sorted(fitting, key=fitting.__getitem__)
    if others:
        if fitting[first] > 0.5 * fitting[others[0]]:
            raise AnchorError(
                f"the anchor is as near to {first} as to {others[0]} (relative weight distance {fitting[first]:.3g} "
                f"and {fitting[others[0]]:.3g}), so which one it was made for can't be told; pass component="
            )
        logger.warning(
            "the anchor was made for %s (relative weight distance %.3g, to %s %.3g): realigning %s alone",
            first, fitting[first], others[0], fitting[others[0]], first,
        )  # fmt: skip
    return first


def load_anchor(
    pipe: Any, component: str, denoiser: nn.Module, name: str, anchor: AnchorLike, location: Location
) -> Anchor:
    """Load or hold one anchor of one denoiser.

    Raises:
        AnchorError: it can't be read, doesn't fit, or was trained on another noise schedule.
    """
    if isinstance(anchor, nn.Module):
        return hold_module(name, denoiser, anchor, component, {})
    if isinstance(anchor, str) and anchor in adapter_names(denoiser):
        return hold_adapter(name, anchor)
    source = resolve_anchor(anchor, [component], location)
    if source.kind is Kind.LORA:
        return hold_lora(name, pipe, denoiser, source, component)
    schedule = getattr(scheduler_of(pipe, component), "config", {})
    return load_network(name, denoiser, source, component, schedule)


def scheduler_of(pipe: Any, component: str) -> Any:
    """The scheduler that steps a denoiser (unCLIP and kin have one for each)."""
    words = component.split("_")
    for end in range(len(words), -1, -1):  # super_res_first_scheduler, super_res_scheduler, ..., scheduler
        scheduler = pipe.components.get("_".join([*words[:end], "scheduler"]))
        if scheduler is not None:
            return scheduler
    return None

"""``realign``: find the denoisers and their anchors, check that they fit, and hook them; all of it or nothing."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from deradiff.acceleration import Exact, Policy, PolicyRunner, Weights
from deradiff.anchor.adapters import check_not_fused
from deradiff.anchor.ensembles import Ensemble, build_ensemble, build_interpolated
from deradiff.anchor.load import Anchor, merge_adapter
from deradiff.anchor.location import Location
from deradiff.anchor.module_tree import ModuleTree, unwrapped
from deradiff.errors import AnchorError, RealignError
from deradiff.realignment.assign import AnchorLike, components_for, load_anchor, named_anchors, scheduler_of
from deradiff.realignment.denoisers import denoisers, pick
from deradiff.realignment.handle import Handle, attach
from deradiff.realignment.hook import DenoiserHook
from deradiff.realignment.intercept import owner_of
from deradiff.realignment.lams import LamLike, Lams
from deradiff.realignment.limits import check_modules, check_no_step_cache
from deradiff.realignment.particles import check_particles
from deradiff.realignment.text_encoders import TextEncoder, set_text_encoders

logger = logging.getLogger("deradiff")


def realign(
    pipe: Any,
    aligned: Any,
    lam: LamLike = 0.5,
    *,
    component: str | None = None,
    ensemble: Ensemble = "auto",
    policy: Policy | None = None,
    particles: int = 1,
    return_all_particles: bool = False,
    text_encoder: TextEncoder = "reference",
    subfolder: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    weight_name: str | None = None,
) -> Handle:
    """Realign a diffusers pipeline at sampling time between its own model and an aligned one.

    Every call of the denoiser returns ``ref + lam (aligned - ref)``, the geometric mixture of the two reverse steps,
    which emulates a model aligned from scratch at KL strength beta / lam (DeRaDiff, arXiv 2601.20198).

    Args:
        pipe: any diffusers pipeline; its denoiser is the reference.
        aligned: the anchor: a network of the denoiser's class, or a pipeline that holds one; a folder, safetensors
            file or hub id of a full checkpoint or of a LoRA; the name of a LoRA loaded on the pipe.  A mapping from
            the pipe's component names gives each denoiser its anchor; any other mapping names several anchors, and
            ``lam`` is then a mapping with the same keys.
        lam: 0 is the reference, 1 the anchor, between is more regularised, above 1 extrapolates (a warning says that
            nothing bounds it); a float, or one per image or prompt.
        component: the denoiser, where it can't be inferred.
        ensemble: how the models are held: ``"toggle"`` switches a LoRA off and on, ``"separate"`` keeps two sets of
            weights, ``"batched"`` runs both models in one forward; ``"auto"`` takes toggle for LoRAs, and separate for
            full checkpoints.
        policy: fewer network calls at a small error (docs/performance.md): ``Reuse(refresh=3)`` computes the anchor
            at every third step, ``Adaptive(tolerance=0.01)`` both models at some; ``Weights()`` runs one network at
            interpolated weights (another method, a baseline); None calls every model at each step.
        particles: K particles an image, weighed and resampled, put back what mixing step by step leaves out (docs/
            exactness.md); K times the calls. With guidance the mixture is that of the two *guided* models.
        return_all_particles: return all K of an image side by side, weighed in ``handle.paths.log_weights``, not one
            drawn by weight.
        text_encoder: whose text encoders encode prompts, at every lam: the reference's, or the anchor's.
        subfolder: where in a folder or repository the anchor lies.
        revision: branch, tag or commit of a repository on the hub.
        variant: of the anchor's weights, such as ``"fp16"``; None takes the plain ones, or the only ones there are.
        weight_name: the anchor's safetensors file, where a folder or repository holds several.

    Returns:
        A handle: set ``handle.lam`` at any time, ``handle.remove()`` or leave its ``with`` block to undo.

    Raises:
        AnchorError: an anchor that can't be read or doesn't fit; nothing stays attached.
        RealignError: a pipeline already realigned, fused, cached, or without a denoiser; particles beside a policy.
        LamError: a lam that isn't finite, or of the wrong count.
    """
    if owner_of(pipe):
        raise RealignError(
            "the pipe is realigned already; set its handle's lam, or call handle.remove() and give all anchors together"
        )
    parts = denoisers(pipe) if component is None else pick(pipe, component)
    networks = {name: unwrapped(part) for name, part in parts.items()}
    for name, network in networks.items():
        _check_ready(name, parts[name], network, one_model=isinstance(policy, Weights))
    policy = Exact() if policy is None else policy
    _check_settings(ensemble, policy, particles, text_encoder)
    location = Location(subfolder=subfolder, revision=revision, variant=variant, weight_name=weight_name)
    entries = named_anchors(networks, aligned)
    if str(location) and not any(isinstance(anchor, str | Path) for _, _, anchor in entries):
        raise AnchorError(f"{location}: expected an anchor in a folder or on the hub, and this one is in memory")
    Lams.parse(lam, list(dict.fromkeys(name for name, _, _ in entries)))  # before anything is loaded
    anchors: dict[str, list[tuple[str, AnchorLike]]] = {}
    for name, target, anchor in entries:
        for key in [target] if target else components_for(networks, anchor, location):
            anchors.setdefault(key, []).append((name, anchor))
    with ExitStack() as stack:
        hooks: list[DenoiserHook] = []
        for key, named in anchors.items():
            loaded = _load_anchors(pipe, key, networks[key], named, location, stack)
            hooks.append(_hook(pipe, key, networks[key], loaded, ensemble, policy))
            for one, (name, anchor) in zip(loaded, named, strict=True):
                set_text_encoders(pipe, _as_given(aligned, name, anchor), one, text_encoder, stack)
        handle = Handle(pipe, hooks)
        handle.lam, handle.particles, handle.return_all_particles = lam, particles, return_all_particles
        if not isinstance(policy, Weights):
            handle.policy = policy  # checks that it fits
        attach(handle, pipe, parts, stack)
    return handle


def _as_given(aligned: Any, name: str, anchor: AnchorLike) -> Any:
    """The pipeline that an anchor came with, or the anchor."""
    whole = aligned.get(name, anchor) if isinstance(aligned, Mapping) else aligned
    return whole if hasattr(whole, "components") else anchor


def _check_settings(ensemble: str, policy: Policy, particles: int, text_encoder: str) -> None:
    if text_encoder not in get_args(TextEncoder):
        raise RealignError(f"text_encoder is {text_encoder!r}; expected 'reference' or 'anchor'")
    if ensemble not in get_args(Ensemble):
        raise RealignError(f"ensemble is {ensemble!r}; expected one of {', '.join(get_args(Ensemble))}")
    check_particles(particles)
    if particles > 1 and not isinstance(policy, Exact):
        raise RealignError("particles need both models' predictions at every step; leave policy= out")
    if isinstance(policy, Weights) and ensemble != "auto":
        raise RealignError(f"policy=Weights() holds one network of mixed weights; leave ensemble={ensemble!r} out")


def _load_anchors(
    pipe: Any,
    component: str,
    denoiser: nn.Module,
    named: list[tuple[str, AnchorLike]],
    location: Location,
    stack: ExitStack,
) -> list[Anchor]:
    anchors: list[Anchor] = []
    for name, anchor in named:
        anchors.append(load_anchor(pipe, component, denoiser, name, anchor, location))
        stack.callback(anchors[-1].undo)
    return anchors


def _hook(
    pipe: Any, component: str, denoiser: nn.Module, anchors: list[Anchor], ensemble: Ensemble, policy: Policy
) -> DenoiserHook:
    if isinstance(policy, Weights):
        models = build_interpolated(denoiser, anchors)
    else:
        separate = ensemble == "separate"
        merged = [merge_adapter(anchor, denoiser) for anchor in anchors] if separate else anchors
        models = build_ensemble(component, denoiser, merged, ensemble)

    def scheduler() -> Any:
        return scheduler_of(pipe, component)

    runner = PolicyRunner(policy, scheduler, lambda: _guidance_of(pipe))
    return DenoiserHook(component, denoiser, models, [anchor.name for anchor in anchors], scheduler, runner)


def _guidance_of(pipe: Any) -> float | None:
    if not getattr(pipe, "do_classifier_free_guidance", False):
        return None
    return float(torch.as_tensor(pipe.guidance_scale).double().mean())  # some have one a frame


def _check_ready(component: str, part: nn.Module, denoiser: nn.Module, *, one_model: bool) -> None:
    if owner_of(part) or owner_of(denoiser):
        raise RealignError(
            f"{component} is realigned already; call handle.remove() on the first handle, or set its lam"
        )
    tree = ModuleTree(denoiser)
    check_no_step_cache(component, tree)
    check_modules(component, tree, one_model=one_model)
    check_not_fused(denoiser)

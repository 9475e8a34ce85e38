"""Checks for what realignment does not support, so that nothing is computed wrongly."""

from typing import Any

from torch import nn

from deradiff.anchor.module_tree import ModuleTree, unwrapped
from deradiff.compat import ROWS_ARE_NOT_IMAGES, is_kind
from deradiff.errors import LamError, RealignError


def check_no_step_cache(component: str, tree: ModuleTree) -> None:
    """Raise RealignError while a step cache is on: it would replay one model's activations in the other."""
    if caches := tree.step_caches:
        raise RealignError(
            f"{component} has a step cache enabled ({', '.join(caches)}), which would replay one model's activations "
            f"in the other; call pipe.{component}.disable_cache() first"
        )


def check_modules(component: str, tree: ModuleTree, *, one_model: bool) -> None:
    """Raise RealignError where layers were changed so that an anchor, or two models, can't run on them."""
    if tree.fuses_projections:
        raise RealignError(
            f"the attention of {component} runs on fused q, k and v projections, which neither a LoRA nor a full "
            f"anchor reaches; call pipe.unfuse_qkv_projections() (or pipe.{component}.unfuse_qkv_projections()) first"
        )
    if tree.replaced_forwards and not one_model:
        names = ", ".join(f"{component}.{name}" if name else component for name in tree.replaced_forwards[:3])
        raise RealignError(
            f"the forward of {names} has been replaced, by a cache or kin: what it keeps of one model would go into "
            "the other; undo that, or realign with policy=Weights(), which runs one model"
        )


def check_no_attention_stores(component: str, tree: ModuleTree) -> None:
    """Raise RealignError where attention processors keep maps, which two models would overwrite for one another."""
    if stores := tree.map_stores:
        raise RealignError(
            f"{component} uses {', '.join(stores)}, which keeps attention maps between calls, so two models can't "
            "share it; realign a pipeline without it, or use policy=Weights()"
        )


def check_same_denoiser(pipe: Any, component: str, denoiser: nn.Module) -> None:
    """Raise RealignError where the pipeline calls another network by now than the one that is realigned."""
    if unwrapped(getattr(pipe, component, denoiser)) is not denoiser:
        raise RealignError(f"pipe.{component} has been replaced; call handle.remove() and realign the pipe again")


def check_rows_are_images(pipe: Any, lams: int, *, batched: bool, particles: int) -> None:
    """Refuse one lam per image, particles, and a batch mixed of several models, where the batch's rows aren't images.

    Raises:
        LamError: several lams.
        RealignError: particles; or a mixed batch, in which frames or views of one model would meet those of another.
    """
    if not is_kind(pipe, ROWS_ARE_NOT_IMAGES):
        return
    name = type(pipe).__name__
    if batched:
        raise RealignError(f"the rows of {name}'s batches belong together; realign with ensemble='toggle'")
    if particles > 1:
        raise RealignError(f"the rows of {name}'s batches are not images, so it takes no particles")
    if lams > 1:
        raise LamError(f"the rows of {name}'s batches are not images, so it takes one lam for all, got {lams}")

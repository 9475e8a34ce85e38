"""``bake``: from a realigned pipeline to one ordinary LoRA or checkpoint, with its error measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deradiff.bake.distillation import Distillation, distil
from deradiff.bake.files import Format, write_checkpoint, write_lora
from deradiff.bake.model_card import describe_bake
from deradiff.bake.page import write_page
from deradiff.bake.quality import BakeQuality, measure
from deradiff.bake.weights import bake_weights, interpolate_weights
from deradiff.errors import BakeError
from deradiff.hub.model_card import write_model_card
from deradiff.realignment.lams import LamLike
from deradiff.rewards import Reward
from deradiff.runs.recipe import Recipe

PAGE = "bake.html"
_WEIGHTS_NOTE = "weight interpolation, not the mixture of predictions step by step"
_DISTILLED_NOTE = "trained to predict the mixture of reference and anchor in one call a step"
_NOT_BETTER_NOTE = f"{_WEIGHTS_NOTE}; distillation came no nearer, so it was not taken"


def bake(
    pipe: Any,
    aligned: Any,
    lam: LamLike,
    folder: str | Path,
    prompts: Sequence[str],
    *,
    format: Format = "diffusers",
    component: str | None = None,
    rank: int | None = None,
    energy: float | None = None,
    distillation: Distillation | None = None,
    training_prompts: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    guidance: float | None = None,
    rewards: Mapping[str, Reward] | None = None,
    card: Mapping[str, Any] | None = None,
    advance: Callable[[float, float], object] = lambda share, loss: None,
) -> BakeQuality:
    """Bake a realigned pipeline into one LoRA or checkpoint, write it with its card, and measure what it loses.

    Args:
        pipe: the reference pipeline; left as it was.
        aligned: the anchor, or a mapping of several, as :func:`deradiff.realign` takes them.
        lam: one lam an anchor.
        folder: receives the weights, the card, a README.md for the hub and ``bake.html``.
        prompts: to measure the error on, one image each.
        format: of a LoRA ``diffusers``, ``kohya`` (ComfyUI, A1111) or ``peft``; ``checkpoint``, the denoiser's weights.
        component: the denoiser, where it can't be inferred.
        rank: the most that a layer of the weights bake may have.
        energy: share of each layer's ``||dW||²`` that the weights bake keeps, in (0, 1].
        distillation: train the LoRA on realigned predictions; None bakes the weights alone.
        training_prompts: of the distillation; None takes ``prompts``.
        recipe: gives steps, size and batch size.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        rewards: by name, to compare.
        card: further entries of the card, such as the models' names; JSON-able.
        advance: of the distillation: receives the share of the work that is done, and the loss.

    Returns:
        The error against the realigned pipeline.

    Raises:
        BakeError: it can't be baked or written so.
        AnchorError, RealignError, LamError, RewardError: as :func:`deradiff.realign` and the rewards.
    """
    if not prompts:
        raise BakeError("no prompts: a bake is measured on some, so give at least one")
    if format == "checkpoint" and (distillation or rank or energy):
        raise BakeError("a checkpoint has all weights; leave out rank, energy and distillation, which are for LoRAs")
    folder, recipe = Path(folder), recipe or Recipe()
    text = dict(card or {}) | {"lam": lam, "kind": "weights", "note": _WEIGHTS_NOTE}
    if format == "checkpoint":
        name, network = interpolate_weights(pipe, aligned, lam, component=component)
        path = write_checkpoint(pipe, name, network, folder, card=text)
    else:
        update = bake_weights(pipe, aligned, lam, component=component, rank=rank, energy=energy)
        name = update.component
        text["left_out_by_rank"] = update.error
        if distillation:
            trained = distil(
                pipe, aligned, lam, update, training_prompts or prompts, distillation, recipe, guidance, advance
            )
            better = trained is not update
            text |= {"kind": "distilled", "note": _DISTILLED_NOTE} if better else {"note": _NOT_BETTER_NOTE}
            update = trained
        path = write_lora(pipe, update, folder, format, card=text)
    source = path if format == "kohya" else folder
    quality = measure(pipe, aligned, lam, source, prompts, recipe, component=name, guidance=guidance, rewards=rewards)
    facts = {key.replace("_", " "): _in_words(value) for key, value in text.items()}
    write_page(quality, facts, folder / PAGE)
    write_model_card(folder, describe_bake(text, quality, format, name, path.name))
    return quality


def _in_words(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

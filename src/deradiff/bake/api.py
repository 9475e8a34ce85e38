"""``bake``: from a realigned pipeline to one ordinary LoRA or checkpoint, with its error measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from torch import nn

from deradiff.anchor.earlier_weights import earlier_weights, kohya_name
from deradiff.anchor.lora_files import LoraFormat, check_layout
from deradiff.bake.distillation import Distillation, DistillationResult, distil
from deradiff.bake.files import Format, check_folder, write_checkpoint, write_lora
from deradiff.bake.model_card import describe_bake, in_words
from deradiff.bake.page import write_page
from deradiff.bake.quality import BakeQuality, measure
from deradiff.bake.teacher import GUIDANCE_OFF
from deradiff.bake.weights import LoraUpdate, bake_weights, interpolate_weights
from deradiff.errors import BakeError
from deradiff.hub.model_card import write_model_card
from deradiff.realignment.lams import LamLike
from deradiff.rewards import Reward
from deradiff.runs.recipe import Recipe
from deradiff.writing import replacing_entries

PAGE = "bake.html"
_WEIGHTS_NOTE = "weight interpolation, not the mixture of predictions step by step"
_DISTILLED_NOTE = "trained to predict the mixture of reference and anchor in one call a step"
_NOT_NEARER_NOTE = f"{_WEIGHTS_NOTE}; distillation came no nearer, so it was not taken"
_FOLDED_NOTE = (
    "trained to predict the mixture of reference and anchor, guided at {guidance:g}, in one call a step: sample it "
    "with classifier-free guidance off (guidance_scale=1)"
)


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
        folder: receives the weights, the card, a README.md for the hub and ``bake.html``; a folder of its own.
        prompts: to measure the error on, one image each.
        format: of a LoRA ``diffusers``, ``kohya`` (ComfyUI, A1111) or ``peft``; ``checkpoint``, the denoiser's weights.
        component: the denoiser, where it can't be inferred.
        rank: the most that a layer of the weights bake may have.
        energy: share of each layer's ``||dW||²`` that the weights bake keeps, in (0, 1].
        distillation: train the LoRA on realigned predictions, with guidance folded in if it says so; None bakes the
            weights alone.
        training_prompts: of the distillation; None takes ``prompts``.
        recipe: gives steps, size and batch size.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        rewards: by name, to compare.
        card: further entries of the card, such as the models' names; JSON-able.
        advance: of the distillation: receives the share of the work that is done, and the loss.

    Returns:
        The error against the realigned pipeline.

    Raises:
        BakeError: it can't be baked or written so, or guidance was to be folded in and training came no nearer.
        AnchorError, RealignError, LamError, RewardError: as :func:`deradiff.realign` and the rewards.
    """
    if not prompts:
        raise BakeError("no prompts: a bake is measured on some, so give at least one")
    if format == "checkpoint" and (distillation or rank or energy):
        raise BakeError("a checkpoint has all weights; leave out rank, energy and distillation, which are for LoRAs")
    folder, recipe = Path(folder), recipe or Recipe()
    check_folder(folder, aligned)
    text = dict(card or {}) | {"lam": lam, "kind": "weights", "note": _WEIGHTS_NOTE}
    remarks: tuple[str, ...] = ()
    baked_guidance = GUIDANCE_OFF if distillation and distillation.fold_guidance else guidance
    weights: LoraUpdate | nn.Module
    if format == "checkpoint":
        name, weights = interpolate_weights(pipe, aligned, lam, component=component)
    else:
        weights = bake_weights(pipe, aligned, lam, component=component, rank=rank, energy=energy)
        name = weights.component
        check_layout(pipe.components[name], format, get_args(LoraFormat), BakeError)
        text["left_out_by_rank"] = weights.error
        if distillation:
            result = distil(
                pipe, aligned, lam, weights, training_prompts or prompts, distillation, recipe, guidance, advance
            )
            entries = _describe(result, guidance if distillation.fold_guidance else None)
            weights, text = result.update, text | entries
            remarks = (entries["note"], entries["distillation"])
    with replacing_entries(folder, BakeError, earlier_weights(folder, BakeError)) as part:
        path = _write(pipe, name, weights, part, format, text, kohya_name(folder))
        quality = measure(
            pipe, aligned, lam, path, prompts, recipe, component=name, guidance=guidance, baked_guidance=baked_guidance,
            rewards=rewards,
        )  # fmt: skip
        quality = replace(quality, remarks=remarks)
        write_page(quality, {key.replace("_", " "): in_words(value) for key, value in text.items()}, part / PAGE)
    write_model_card(folder, describe_bake(text, quality, format, name, path.name))
    return quality


def _write(
    pipe: Any, name: str, weights: LoraUpdate | nn.Module, part: Path, format: Format, text: dict[str, Any], stem: str
) -> Path:
    """Write the weights; returns what realign takes them from."""
    if isinstance(weights, LoraUpdate):
        return write_lora(pipe, weights, part, cast(LoraFormat, format), card=text, name=stem)
    return write_checkpoint(pipe, name, weights, part, card=text)


def _describe(result: DistillationResult, folded: float | None) -> dict[str, Any]:
    """What the card says of a distillation into which guidance at a scale was folded, or none.

    Raises:
        BakeError: guidance was to be folded in, and the trained LoRA isn't nearer: the weights can't stand for it.
    """
    sentence = result.sentence()
    if not result.is_nearer and folded is not None:
        raise BakeError(f"guidance couldn't be folded in: {sentence}; distil longer, or without folding guidance in")
    if not result.is_nearer:
        return {"note": _NOT_NEARER_NOTE, "distillation": sentence}
    if folded is not None:
        note = _FOLDED_NOTE.format(guidance=folded)
        return {"kind": "distilled", "note": note, "folded_guidance": folded, "distillation": sentence}
    return {"kind": "distilled", "note": _DISTILLED_NOTE, "distillation": sentence}

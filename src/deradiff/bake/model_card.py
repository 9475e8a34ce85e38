"""The model card of a bake."""

from collections.abc import Mapping
from typing import Any

from deradiff.bake.files import Format
from deradiff.bake.quality import BakeQuality
from deradiff.hub.model_card import ModelCard, hub_id, name_of

_BASE = """\
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{base}")
"""
_PEFT = """\
from peft import PeftModel

pipe.{component} = PeftModel.from_pretrained(pipe.{component}, "{here}")"""
_LOAD = {
    "diffusers": 'pipe.load_lora_weights("{here}")',
    "kohya": 'pipe.load_lora_weights("{here}", weight_name="{file}")  # or ComfyUI, A1111',
    "peft": _PEFT,
    "checkpoint": 'pipe.{component} = type(pipe.{component}).from_pretrained("{here}", subfolder="{component}")',
}
_CALL_WITHOUT_GUIDANCE = """
image = pipe("a prompt", guidance_scale=1.0).images[0]  # guidance is folded in"""


def describe_bake(
    card: Mapping[str, Any], quality: BakeQuality, format: Format, component: str, file: str
) -> ModelCard:
    """What a bake's card and its measured error say in a README.

    Args:
        card: the entries that `deradiff.bake.bake` writes.
        quality: of the bake.
        format: of its files.
        component: the denoiser.
        file: name of the file of weights, or of the folder.
    """
    reference = str(card.get("reference", "unknown"))
    folded = card.get("folded_guidance")
    beta = f"{card['beta']:g}, in the units of the anchor's" if "beta" in card else "unknown"
    facts = {
        "anchor": ", ".join(map(name_of, str(card.get("anchor", "unknown")).split(", "))),
        "lam": in_words(card["lam"]),
        "emulated beta": beta,
        "kind": f"{card['kind']}: {card['note']}",
        "measured": "; ".join(quality.sentences()),
    }
    call = _CALL_WITHOUT_GUIDANCE if folded else ""
    if "distillation" in card:
        facts["distillation"] = str(card["distillation"])
    usage = (_BASE + _LOAD[format] + call).format(
        base=hub_id(reference) or "path/to/the/base",
        here="path/to/this/folder/or/repository",
        component=component,
        file=file,
    )
    return ModelCard(
        title=f"A bake at lam = {in_words(card['lam'])}",
        summary="One set of weights that stands for a realigned pipeline, at one network evaluation a step.",
        reference=reference,
        facts=facts,
        usage=usage,
        is_adapter=format != "checkpoint",
    )


def in_words(value: Any) -> str:
    """An entry of a bake's card: of several anchors, their values in order."""
    if isinstance(value, Mapping):
        return ", ".join(map(in_words, value.values()))
    return f"{value:g}" if isinstance(value, float) else str(value)

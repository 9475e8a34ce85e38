"""The model card of a trained anchor."""

from collections.abc import Mapping
from typing import Any

from deradiff.hub.model_card import ModelCard, hub_id

_METHODS = {"dpo": "Diffusion-DPO (arXiv 2311.12908)", "ipo": "IPO (arXiv 2310.12036)"}
_USAGE = """\
import deradiff
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{base}")
handle = deradiff.realign(pipe, "{here}", lam=0.5)  # emulates beta / lam; 1 is this model
images = pipe("a prompt").images"""


def describe_anchor(card: Mapping[str, Any]) -> ModelCard:
    """What an anchor's card, the entries that `deradiff.align.align` writes, says in a README."""
    reference = str(card.get("reference", "unknown"))
    weights = "all weights of the denoiser" if card["full"] else f"a LoRA of rank {card['rank']}"
    reward = card.get("reward")
    facts = {
        "method": _METHODS[card["loss"]],
        "beta": f"{card['beta']:g}",
        "convention of beta": f"{card['convention']} {_multiplier(card['beta_convention'])}",
        "weights": weights,
        "preferences": f"of the reward {reward} on the base's own samples" if reward else "a data set",
        "sha256 of the preferences": str(card["data"]),
        "steps": f"{card['steps']} of {card['train_batch_size']} pairs at a learning rate of {card['learning_rate']:g}",
        "seed": str(card["seed"]),
    }
    return ModelCard(
        title=f"An anchor at beta = {card['beta']:g}",
        summary=f"Weights ({weights}) aligned to preferences, made to be mixed with their base at sampling time.",
        reference=reference,
        facts=facts,
        usage=_USAGE.format(base=hub_id(reference) or "path/to/the/base", here="path/to/this/folder/or/repository"),
        is_adapter=not card["full"],
    )


def _multiplier(convention: Mapping[str, Any]) -> str:
    factor = convention["factor"] * convention["timestep_weight"]
    return f"(log-ratio: {factor:.6g} times the {convention['reduction']} of squared errors over a latent)"

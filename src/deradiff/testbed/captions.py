"""What a caption says of a scene, and back: ``a small red circle on a white background``.

Size and background may go unsaid. Two objects stand in a relation: ``a red circle above a blue square``.
"""

import re
from dataclasses import dataclass

import numpy as np

from deradiff.errors import DeradiffError
from deradiff.testbed.scenes import COLOURS, PAIRS, SHAPES, SPRITES, Scene

RELATIONS = {
    "left of": ("left of", False),
    "right of": ("left of", True),
    "above": ("above", False),
    "below": ("above", True),
}
"""Each relation's word, as the pair of `scenes.PAIRS` it stands for and whether the objects are named in reverse."""

_OBJECT = r"an? (?:(?P<size{0}>small|large) )?(?P<colour{0}>{1}) (?P<shape{0}>{2})"
_PATTERN = re.compile(
    _OBJECT.format(1, "|".join(COLOURS), "|".join(SHAPES))
    + rf"(?: (?P<relation>{'|'.join(RELATIONS)}) "
    + _OBJECT.format(2, "|".join(COLOURS), "|".join(SHAPES))
    + rf")?(?: on an? (?P<background>{'|'.join(COLOURS)}) background)?"
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a caption claims: shapes and colours in the order left to right or top to bottom; None is unsaid.

    ``pair`` is a key of `scenes.PAIRS`, None for a single object; only a single object has a size.
    """

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    size: str | None = None
    pair: str | None = None
    background: str | None = None


def claim_of(scene: Scene) -> Claim:
    """Everything there is to say of a scene."""
    sprites = [SPRITES[index] for index in scene.sprites]
    slots = tuple(sprite.slot for sprite in sprites)
    return Claim(
        shapes=tuple(sprite.shape for sprite in sprites),
        colours=scene.colours,
        size=sprites[0].size if len(sprites) == 1 else None,
        pair=next((pair for pair, sides in PAIRS.items() if sides == slots), None),
        background=scene.background,
    )


def caption(claim: Claim, *, reverse: bool = False) -> str:
    """The claim in words; ``reverse`` names the right or lower object first."""
    sizes = [f"{claim.size} " if claim.size else ""] + [""] * (len(claim.shapes) - 1)
    nouns = [
        f"{'an' if not size and colour == 'orange' else 'a'} {size}{colour} {shape}"
        for size, colour, shape in zip(sizes, claim.colours, claim.shapes, strict=True)
    ]
    text = nouns[0]
    if claim.pair is not None:
        word = next(word for word, meaning in RELATIONS.items() if meaning == (claim.pair, reverse))
        text = f" {word} ".join(reversed(nouns) if reverse else nouns)
    if claim.background is None:
        return text
    return f"{text} on {'an' if claim.background == 'orange' else 'a'} {claim.background} background"


def random_caption(scene: Scene, rng: np.random.Generator, *, drop: float = 0.5) -> str:
    """A caption of a scene in either order, leaving size and background unsaid with probability ``drop`` each."""
    full = claim_of(scene)
    claim = Claim(
        shapes=full.shapes,
        colours=full.colours,
        size=None if rng.random() < drop else full.size,
        pair=full.pair,
        background=None if rng.random() < drop else full.background,
    )
    return caption(claim, reverse=bool(claim.pair and rng.random() < 0.5))


def parse(text: str) -> Claim:
    """The claim a caption makes; the inverse of `caption`.

    Raises:
        DeradiffError: the text isn't a caption of this testbed.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or (match["relation"] and (match["size1"] or match["size2"])):
        raise DeradiffError(
            f"not a caption of the testbed: {text!r}. Write it like 'a small red circle on a white background' or "
            f"'a red circle left of a blue square'; colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}."
        )
    pair, reverse = RELATIONS.get(match["relation"], (None, False))
    numbers = ((2, 1) if reverse else (1, 2)) if pair else (1,)
    return Claim(
        shapes=tuple(match[f"shape{number}"] for number in numbers),
        colours=tuple(match[f"colour{number}"] for number in numbers),
        size=match["size1"],
        pair=pair,
        background=match["background"],
    )

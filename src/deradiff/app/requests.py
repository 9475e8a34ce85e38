"""What a page may ask for: one image, bounded so that no visitor can occupy the machine for long."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from deradiff.validation import Seed, ValidatedModel

MAX_PROMPT = 2000  # characters: text encoders read about 75 to 500 words
MAX_STEPS = 200
MAX_LAM = 2.0  # on a slider
MAX_GUIDANCE = 50.0

Lam = Annotated[float, Field(ge=0, le=MAX_LAM, allow_inf_nan=False)]


class ImageRequest(ValidatedModel):
    """One image to draw.

    Attributes:
        prompt: at most 2,000 characters.
        lams: mixing weight by anchor, in the anchors' order; each from 0 to 2.
        seed: its noise starts from prompt and seed.
        steps: denoising steps, 1 to 200.
        guidance: classifier-free guidance scale, 0 to 50; None is the pipeline's default.
        preview: whether a coarse image will do: fewer steps, the anchor at some of them alone.

    Raises:
        ConfigError: names what is wrong, what was given and what is expected.
    """

    prompt: str
    lams: tuple[tuple[str, Lam], ...] = Field(min_length=1)
    seed: Seed = 0
    steps: int = Field(default=25, ge=1, le=MAX_STEPS)
    guidance: Annotated[float, Field(ge=0, le=MAX_GUIDANCE, allow_inf_nan=False)] | None = None
    preview: bool = False

    @field_validator("prompt")
    @classmethod
    def _prompt(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty; say what to draw")
        if len(prompt) > MAX_PROMPT:
            raise ValueError(f"the prompt has {len(prompt):,} characters; expected at most {MAX_PROMPT:,}")
        prompt.encode()  # a lone surrogate is no text
        return prompt

    @property
    def by_anchor(self) -> Mapping[str, float]:
        """The lams by anchor."""
        return dict(self.lams)

"""The settings of a training."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from deradiff.align.convention import NAMES
from deradiff.validation import ValidatedModel

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class Settings(ValidatedModel):
    """Everything beside the pipeline and the preferences that determines the trained weights.

    Attributes:
        beta: KL strength, positive, in the units of ``convention``.
        convention: ``kl``, ``sdxl-script`` or ``sd15-script`` (:mod:`deradiff.align.convention`).
        loss: ``dpo`` or ``ipo``.
        label_smoothing: share of labels believed to be wrong, in [0, 0.5).
        steps: of the optimizer.
        train_batch_size: pairs in a step, over all processes.
        noise_samples: samples of (t, eps) for each pair, whose errors are averaged inside the loss; ``draws`` on disk.
        gradient_accumulation_steps: number of micro-batches in a step.
        learning_rate: peak of AdamW's; linear warm-up over the first fifteenth of the steps, then cosine decay.
        full: train all weights of the denoiser instead of a LoRA.
        rank: of the LoRA.
        target_modules: names of the layers that the LoRA changes.
        ema: decay of the exponential moving average that is saved instead of the last weights; None for no average.
        seed: of batches, timesteps, noise and the LoRA's initial weights.
        component: name of the denoiser, if it can't be inferred.
        height: pixels; None keeps the pipeline's default.
        width: pixels; None keeps the pipeline's default.
        guidance: guidance input of a guidance-distilled denoiser (FLUX); training uses no classifier-free guidance.
        mixed_precision: of the forward and backward passes.
        gradient_checkpointing: recompute activations to save memory.

    Raises:
        ConfigError: names each setting that is wrong, what was given and what is expected.
    """

    model_config = ConfigDict(populate_by_name=True)

    beta: float = Field(gt=0, allow_inf_nan=False)
    convention: str = "kl"
    loss: Literal["dpo", "ipo"] = "dpo"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    steps: int = Field(default=1000, ge=1)
    train_batch_size: int = Field(default=16, ge=1)
    noise_samples: int = Field(default=1, ge=1, alias="draws")
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    full: bool = False
    rank: int = Field(default=16, ge=1)
    target_modules: tuple[str, ...] = Field(default=ATTENTION, min_length=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    component: str | None = None
    height: int | None = Field(default=None, ge=8, multiple_of=8)
    width: int | None = Field(default=None, ge=8, multiple_of=8)
    guidance: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False

    @field_validator("convention")
    @classmethod
    def _check_convention(cls, convention: str) -> str:
        if convention not in NAMES:
            raise ValueError(f"expected one of {', '.join(NAMES)}")
        return convention

    @model_validator(mode="after")
    def _check_consistent(self) -> "Settings":
        if self.train_batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"train_batch_size ({self.train_batch_size}) must be a multiple of gradient_accumulation_steps "
                f"({self.gradient_accumulation_steps})"
            )
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width go together: give both or neither")
        return self

    def as_json(self) -> dict[str, Any]:
        """The settings as checkpoints and cards store them."""
        return self.model_dump(mode="json", by_alias=True)

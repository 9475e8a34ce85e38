"""A LoRA scaled to lam: weights interpolation, at the cost of the reference alone."""

from collections.abc import Mapping

from torch import Tensor

from .errors import RealignError

UP_SUFFIXES = (
    ".lora_up.weight",
    ".lora_B.weight",
    ".lora_B.default.weight",
    ".lora_B",
    "_lora.up.weight",
    ".lora.up.weight",
    ".lora_linear_layer.up.weight",
)
UNCHANGED_SUFFIXES = (
    ".lora_down.weight",
    ".lora_mid.weight",
    ".lora_A.weight",
    ".lora_A.default.weight",
    ".lora_A",
    "_lora.down.weight",
    ".lora.down.weight",
    ".lora_linear_layer.down.weight",
    ".alpha",
)


def scale_lora(weights: Mapping[str, Tensor], lam: float) -> dict[str, Tensor]:
    """The LoRA that at strength 1 is this one at strength lam; text encoders' weights included.

    Args:
        weights: a file's tensors, under the names of kohya, PEFT or diffusers; each keeps its name, shape and dtype.
        lam: what the up matrices are multiplied by, in float32.

    Raises:
        RealignError: a tensor isn't part of a low-rank pair, so that scaling would not be interpolating.
    """
    if not any(name.endswith(UP_SUFFIXES) for name in weights):
        raise RealignError("The file holds no low-rank up and down pair; choose a LoRA.")
    for name in weights:
        if not name.endswith(UP_SUFFIXES + UNCHANGED_SUFFIXES):
            raise RealignError(
                f"The LoRA holds {name}, which is no part of a low-rank up and down pair (LoHa, LoKr, DoRA and full "
                "differences can't be baked); use Load LoRA at a strength of lam instead."
            )
    return {
        name: (weight.float() * lam).to(weight.dtype) if name.endswith(UP_SUFFIXES) else weight
        for name, weight in weights.items()
    }

"""Networks with all their weights: where a file lacks some, diffusers and transformers warn and leave random ones."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from deradiff.anchor.lora import in_short
from deradiff.errors import AnchorError


def load_pretrained(kind: Any, folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """A network from a folder in diffusers' or transformers' layout, from safetensors on this machine alone.

    Args:
        kind: its class, a ``ModelMixin`` or a ``PreTrainedModel``.
        folder: with config and weights.
        dtype: of its weights.
        variant: of the files, such as fp16; None is the plain ones.

    Raises:
        AnchorError: it can't be read, or lacks weights.
    """
    pickles = sorted(folder.glob("*.bin"))
    if pickles and not any(folder.glob("*.safetensors")):
        raise AnchorError(
            f"{folder} has its weights as pickles alone ({pickles[0].name}), which can run code when loaded: convert "
            "them to safetensors"
        )
    try:
        network, info = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AnchorError(
            f"{folder} can't be loaded as a {kind.__name__} from safetensors: {in_short(error)}: fetch it again, or "
            "take a config that fits"
        ) from error
    if missing := sorted(info["missing_keys"]):
        unknown = sorted(info["unexpected_keys"])
        instead = f", and has {len(unknown)} of other names ({unknown[0]}, ...)" if unknown else ""
        raise AnchorError(
            f"{folder} lacks {len(missing)} weights of a {kind.__name__} ({missing[0]}, ...){instead}: fetch it again, "
            "or take the versions of diffusers and transformers that it was saved with"
        )
    return network

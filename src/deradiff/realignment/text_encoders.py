"""Text encoders of an anchor: they run once a prompt, so they can't be mixed step by step.

The reference's encode the prompts at every lam, so that lam = 0 is the reference; or the anchor's do at every lam.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from deradiff.anchor.adapters import adapter_layers, peft_metadata, remove_adapter, toggled, unchanged_otherwise
from deradiff.anchor.load import Anchor
from deradiff.anchor.lora import in_short
from deradiff.anchor.module_tree import ModuleTree
from deradiff.anchor.pretrained import load_pretrained
from deradiff.errors import AnchorError

logger = logging.getLogger("deradiff")

TextEncoder = Literal["reference", "anchor"]


def set_text_encoders(pipe: Any, anchor: Any, loaded: Anchor, which: TextEncoder, stack: ExitStack) -> None:
    """Let the reference's text encoders, or the anchor's, encode prompts while the pipe is realigned.

    Args:
        pipe: the pipeline.
        anchor: as the user gave it: a loaded LoRA's name, a path, a network or a pipeline.
        loaded: of it, on a denoiser.
        which: whose text encoders.
        stack: takes the undo.

    Raises:
        AnchorError: the anchor has no text encoders of its own.
    """
    encoders = {
        name: part
        for name, part in getattr(pipe, "components", {}).items()
        if name.startswith("text_encoder") and isinstance(part, nn.Module)
    }
    adapter = loaded.adapter
    if adapter is not None and any(adapter_layers(part, adapter) for part in encoders.values()):
        if which == "reference":
            _switch_off(encoders, adapter, stack)
        return
    if which == "reference":
        return
    if adapter is not None and loaded.path is not None:
        _load_adapter(pipe, encoders, adapter, loaded.path, stack)
    else:
        _swap(pipe, encoders, anchor, stack)


def _switch_off(encoders: dict[str, nn.Module], adapter: str, stack: ExitStack) -> None:
    named = [name for name, part in encoders.items() if adapter_layers(part, adapter)]
    for name in named:
        stack.enter_context(toggled(ModuleTree(encoders[name]), on=[], off=[adapter]))
    logger.warning(
        "the LoRA %s has layers in %s too: switched off while the pipe is realigned, so that lam = 0 is the reference; "
        "text_encoder='anchor' keeps them on at every lam",
        adapter,
        " and ".join(named),
    )


def _load_adapter(pipe: Any, encoders: dict[str, nn.Module], adapter: str, path: Path, stack: ExitStack) -> None:
    file = {"weight_name": path.name, "use_safetensors": True, "local_files_only": True}
    try:
        state, *others = pipe.lora_state_dict(path.parent, return_lora_metadata=True, **file)
        for name, encoder in encoders.items():
            if not any(key.startswith(f"{name}.") for key in state):
                continue
            stack.callback(partial(remove_adapter, encoder, adapter, peft_metadata(encoder)))
            with unchanged_otherwise(encoder):
                pipe.load_lora_into_text_encoder(
                    state,
                    network_alphas=others[0] if len(others) > 1 else None,
                    text_encoder=encoder,
                    prefix=name,
                    adapter_name=adapter,
                    metadata=others[-1] or None,
                )
            stack.enter_context(toggled(ModuleTree(encoder), on=[adapter], off=[]))
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, OSError) as error:
        raise AnchorError(f"the text encoder's part of the LoRA {path} can't be loaded: {in_short(error)}") from error


def _swap(pipe: Any, encoders: dict[str, nn.Module], anchor: Any, stack: ExitStack) -> None:
    others = {name: _encoder_of(anchor, name, part) for name, part in encoders.items()}
    if not any(part is not None for part in others.values()):
        raise AnchorError("text_encoder='anchor', but the anchor has no text encoder; leave it out")
    for name, part in others.items():
        if part is not None:
            stack.callback(_setter(pipe, name, encoders[name]))
            setattr(pipe, name, part)


def _setter(pipe: Any, name: str, part: nn.Module) -> Callable[[], None]:
    return lambda: setattr(pipe, name, part)


def _encoder_of(anchor: Any, name: str, reference: nn.Module) -> nn.Module | None:
    if hasattr(anchor, "components"):
        return anchor.components.get(name)
    if not isinstance(anchor, str | Path) or not (Path(anchor) / name / "config.json").is_file():
        return None
    folder = Path(anchor) / name
    parameter = next(reference.parameters())
    module = load_pretrained(type(reference), folder, parameter.dtype)
    return module.to(parameter.device).eval()

"""What a pipeline or an anchor in hand is known by: `fingerprint` does the same for those on disk."""

import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from deradiff.anchor.location import Location
from deradiff.runs.fingerprint import fingerprint, state_fingerprint


def fingerprint_pipeline(pipe: Any, call_kwargs: Mapping[str, Any]) -> str:
    """Of a pipeline's networks, the configs of all its components, and what it is called with."""
    modules = {name: part.state_dict() for name, part in pipe.components.items() if hasattr(part, "state_dict")}
    digest = blake2b(state_fingerprint(modules).encode(), digest_size=16)
    for name, part in sorted(pipe.components.items()):
        config = getattr(part, "config", None)
        if isinstance(config, Mapping):  # but for versions and paths, as of files
            settings = sorted(str(item) for item in config.items() if not item[0].startswith("_"))
            digest.update(f"{name} {type(part).__name__} {settings}".encode())
        digest.update(_adapters(part).encode())
    for name, value in sorted(call_kwargs.items()):
        digest.update(f"{name}=".encode() + _content(value))
    return digest.hexdigest()


def _adapters(part: Any) -> str:
    """Which LoRAs of a network are active, and how strong: their state dict doesn't tell."""
    modules = part.named_modules() if hasattr(part, "modules") else ()
    layers = [(name, layer) for name, layer in modules if hasattr(layer, "scaling")]
    return repr(
        [
            (name, sorted(layer.scaling.items()), list(layer.active_adapters), layer.disable_adapters)
            for name, layer in layers
            if isinstance(layer.scaling, Mapping) and hasattr(layer, "active_adapters")
        ]
    )


def _content(value: Any) -> bytes:
    """An argument of a pipeline, by content: equal ones have equal bytes, and others don't."""
    if isinstance(value, Mapping):
        parts = [_content(item) for item in sorted(value.items())]
    elif isinstance(value, list | tuple):
        parts = [_content(item) for item in value]
    elif hasattr(value, "detach"):
        tensor = value.detach().cpu().contiguous()
        parts = [f"{tensor.dtype} {tuple(tensor.shape)}".encode(), tensor.float().numpy().tobytes()]
    elif hasattr(value, "tobytes"):
        shape = [getattr(value, name, None) for name in ("mode", "size", "shape", "dtype")]
        parts = [repr(shape).encode(), value.tobytes()]
    else:
        parts = [repr(value).encode()]
    kind = type(value).__name__.encode()
    return b"".join(len(part).to_bytes(8, "little") + part for part in (kind, *parts))


def fingerprint_anchor(anchor: Any, location: Location) -> str | None:
    """Of an anchor in hand: a path, a network, a pipeline, or a mapping of several."""
    if isinstance(anchor, str | os.PathLike):
        return fingerprint(str(anchor), location)
    if isinstance(anchor, Mapping):
        parts = {str(name): fingerprint_anchor(part, location) or str(part) for name, part in anchor.items()}
        return blake2b(repr(sorted(parts.items())).encode(), digest_size=16).hexdigest()
    if hasattr(anchor, "components"):
        return fingerprint_pipeline(anchor, {})
    if hasattr(anchor, "state_dict"):
        return state_fingerprint({"": anchor.state_dict()})
    return str(anchor)

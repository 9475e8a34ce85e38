"""Which components of a pipeline are denoisers."""

from typing import Any

from torch import nn

from deradiff.compat import DENOISERS
from deradiff.errors import RealignError


def denoisers(pipe: Any) -> dict[str, nn.Module]:
    """The denoisers of a pipeline by component name, in the pipeline's order.

    Raises:
        RealignError: not a pipeline, or one without a denoiser.
    """
    components = getattr(pipe, "components", None)
    if not isinstance(components, dict):
        raise RealignError(f"expected a diffusers pipeline, got {type(pipe).__name__}")
    parts = {name: part for name, part in components.items() if name in DENOISERS and isinstance(part, nn.Module)}
    if not parts:
        raise RealignError(
            f"{type(pipe).__name__} has no denoiser among its components {sorted(components)}; if one of them is "
            "called at every step, name it with component="
        )
    return parts


def pick(pipe: Any, component: str) -> dict[str, nn.Module]:
    """The denoiser a user names, which may be any network of the pipeline.

    Raises:
        RealignError: no network of that name.
    """
    components = getattr(pipe, "components", None)
    networks = {name: part for name, part in (components or {}).items() if isinstance(part, nn.Module)}
    if component not in networks:
        raise RealignError(f"{component!r} is no network of {type(pipe).__name__}; expected one of {sorted(networks)}")
    return {component: networks[component]}

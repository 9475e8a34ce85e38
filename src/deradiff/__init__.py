"""How strongly should I align my diffusion model?  Align once, then choose the strength at sampling time.

    handle = deradiff.realign(pipe, aligned, lam=0.5)

torch and diffusers are imported at first use, so that ``import deradiff`` is instant.
"""

from typing import TYPE_CHECKING, Any

from deradiff.errors import AnchorError as AnchorError
from deradiff.errors import DeradiffError as DeradiffError
from deradiff.errors import LamError as LamError
from deradiff.errors import RealignError as RealignError

if TYPE_CHECKING:
    from deradiff.realignment import Handle as Handle
    from deradiff.realignment import realign as realign
    from deradiff.reuse import Adaptive as Adaptive
    from deradiff.reuse import Exact as Exact
    from deradiff.reuse import Reuse as Reuse

__version__ = "0.1.0"
__all__ = [
    "Adaptive",
    "AnchorError",
    "DeradiffError",
    "Exact",
    "Handle",
    "LamError",
    "RealignError",
    "Reuse",
    "realign",
]


def __getattr__(name: str) -> Any:
    if name in {"Handle", "realign"}:
        from deradiff import realignment

        return getattr(realignment, name)
    if name in {"Adaptive", "Exact", "Reuse"}:
        from deradiff import reuse

        return getattr(reuse, name)
    raise AttributeError(f"module 'deradiff' has no attribute {name!r}")

"""How strongly should I align my diffusion model?  Align once, then choose the strength at sampling time.

    handle = deradiff.realign(pipe, aligned, lam=0.5)

torch and diffusers are imported at first use, so that ``import deradiff`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deradiff.errors import AnchorError as AnchorError
from deradiff.errors import ConfigError as ConfigError
from deradiff.errors import DeradiffError as DeradiffError
from deradiff.errors import LamError as LamError
from deradiff.errors import RealignError as RealignError
from deradiff.errors import RunFolderError as RunFolderError

if TYPE_CHECKING:
    from deradiff.analysis.criteria import Guard as Guard
    from deradiff.analysis.recommend import recommend as recommend
    from deradiff.realignment import Handle as Handle
    from deradiff.realignment import realign as realign
    from deradiff.report.page import write_report as write_report
    from deradiff.results import Results as Results
    from deradiff.reuse import Adaptive as Adaptive
    from deradiff.reuse import Exact as Exact
    from deradiff.reuse import Reuse as Reuse
    from deradiff.runs.recipe import Recipe as Recipe
    from deradiff.runs.run import Run as Run

__version__ = "0.1.0"
__all__ = [
    "Adaptive",
    "AnchorError",
    "ConfigError",
    "DeradiffError",
    "Exact",
    "Guard",
    "Handle",
    "LamError",
    "RealignError",
    "Recipe",
    "Results",
    "Reuse",
    "Run",
    "RunFolderError",
    "realign",
    "recommend",
    "write_report",
]

_HOMES = {
    "Adaptive": "deradiff.reuse",
    "Exact": "deradiff.reuse",
    "Guard": "deradiff.analysis.criteria",
    "Handle": "deradiff.realignment",
    "Recipe": "deradiff.runs.recipe",
    "Results": "deradiff.results",
    "Reuse": "deradiff.reuse",
    "Run": "deradiff.runs.run",
    "realign": "deradiff.realignment",
    "recommend": "deradiff.analysis.recommend",
    "write_report": "deradiff.report.page",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deradiff' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

"""How strongly should I align my diffusion model?  Align once, then choose the strength at sampling time.

    handle = deradiff.realign(pipe, aligned, lam=0.5)

torch and diffusers are imported at first use, so that ``import deradiff`` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deradiff.errors import AlignError as AlignError
from deradiff.errors import AnchorError as AnchorError
from deradiff.errors import BakeError as BakeError
from deradiff.errors import ClusterError as ClusterError
from deradiff.errors import ConfigError as ConfigError
from deradiff.errors import DeradiffError as DeradiffError
from deradiff.errors import HubError as HubError
from deradiff.errors import LamError as LamError
from deradiff.errors import PartialScoresError as PartialScoresError
from deradiff.errors import QuarantineError as QuarantineError
from deradiff.errors import RealignError as RealignError
from deradiff.errors import ResultsError as ResultsError
from deradiff.errors import RewardError as RewardError
from deradiff.errors import RewardUnavailableError as RewardUnavailableError
from deradiff.errors import RunFolderError as RunFolderError
from deradiff.errors import ScheduleError as ScheduleError
from deradiff.errors import TableError as TableError

if TYPE_CHECKING:
    from deradiff.acceleration import Adaptive as Adaptive
    from deradiff.acceleration import Exact as Exact
    from deradiff.acceleration import Reuse as Reuse
    from deradiff.acceleration import Weights as Weights
    from deradiff.analysis.criteria import Guard as Guard
    from deradiff.analysis.recommend import recommend as recommend
    from deradiff.compat import register_scheduler as register_scheduler
    from deradiff.guider import RealignmentGuidance as RealignmentGuidance
    from deradiff.realignment import Handle as Handle
    from deradiff.realignment import handle_of as handle_of
    from deradiff.realignment import realign as realign
    from deradiff.report.page import write_report as write_report
    from deradiff.results import Results as Results
    from deradiff.rewards import load_reward as load_reward
    from deradiff.rewards.scorer import Scorer as Scorer
    from deradiff.runs.recipe import Recipe as Recipe
    from deradiff.runs.run import Run as Run
    from deradiff.study import write_study as write_study

_LAZY = {
    "Adaptive": "deradiff.acceleration",
    "Exact": "deradiff.acceleration",
    "Guard": "deradiff.analysis.criteria",
    "Handle": "deradiff.realignment",
    "Recipe": "deradiff.runs.recipe",
    "RealignmentGuidance": "deradiff.guider",
    "Results": "deradiff.results",
    "Reuse": "deradiff.acceleration",
    "Run": "deradiff.runs.run",
    "Scorer": "deradiff.rewards.scorer",
    "Weights": "deradiff.acceleration",
    "handle_of": "deradiff.realignment",
    "load_reward": "deradiff.rewards",
    "realign": "deradiff.realignment",
    "recommend": "deradiff.analysis.recommend",
    "register_scheduler": "deradiff.compat",
    "write_report": "deradiff.report.page",
    "write_study": "deradiff.study",
}

__all__ = [
    "Adaptive",
    "AlignError",
    "AnchorError",
    "BakeError",
    "ClusterError",
    "ConfigError",
    "DeradiffError",
    "Exact",
    "Guard",
    "Handle",
    "HubError",
    "LamError",
    "PartialScoresError",
    "QuarantineError",
    "RealignError",
    "RealignmentGuidance",
    "Recipe",
    "Results",
    "ResultsError",
    "Reuse",
    "RewardError",
    "RewardUnavailableError",
    "Run",
    "RunFolderError",
    "ScheduleError",
    "Scorer",
    "TableError",
    "Weights",
    "handle_of",
    "load_reward",
    "realign",
    "recommend",
    "register_scheduler",
    "write_report",
    "write_study",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("deradiff")
    if name not in _LAZY:
        raise AttributeError(f"module 'deradiff' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

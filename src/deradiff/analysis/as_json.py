"""A recommendation as plain values for JSON, under keys that stay (docs/recommend.md)."""

import math
from dataclasses import asdict
from typing import Any

from deradiff.analysis.curves import Curve
from deradiff.analysis.recommend import Recommendation
from deradiff.analysis.votes import VoteFit


def as_json(answer: Recommendation) -> dict[str, Any]:
    """A recommendation as dicts, lists, texts, truth values and finite numbers; None where a figure isn't known.

    Args:
        answer: of `deradiff.recommend`.
    """
    criteria, settled = answer.criteria, answer.settled_by
    return _plain(
        {
            "lam": answer.lam,
            "beta": answer.beta,
            "candidate": answer.candidate,
            "gain": answer.gain and asdict(answer.gain),
            "interval": answer.interval,
            "lams_by_risk": {f"{risk:g}": lam for risk, lam in answer.lams_by_risk.items()},
            "settled_by": settled and {"lam": settled[0], "prompts": settled[1]},
            "least_prompts": answer.least_prompts,
            "cannot_fail": answer.cannot_fail,
            "pareto": answer.pareto,
            "constraints": answer.constraints,
            "criteria": {**asdict(criteria), "guards": [asdict(guard) for guard in criteria.guards]},
            "lams": [_lam(answer, index) for index in range(len(answer.lams))],
            "alarms": [{"raised": alarm.raised, **asdict(alarm)} for alarm in answer.alarms],
            "suggested_lams": answer.suggested_lams,
            "skipped_rewards": answer.skipped_rewards,
            "prompts": answer.prompts,
            "votes": None if answer.votes is None else _votes(answer.votes),
        }
    )


def _lam(answer: Recommendation, index: int) -> dict[str, Any]:
    return {
        "lam": answer.lams[index],
        "beta": answer.betas[index],
        "verdict": answer.verdicts[index],
        "failing": answer.failing[index],
        "sampled": answer.is_sampled(index),
        "rewards": {name: _figures(curve, index) for name, curve in answer.curves.items()},
    }


def _votes(fit: VoteFit) -> dict[str, Any]:
    return {
        "votes": fit.votes,
        "raters": len(fit.raters),
        "prompts": fit.prompts,
        "tie_rate": fit.tie_rate,
        "best": fit.best,
        "interval": fit.interval,
        "decided": fit.is_decided,
        "votes_needed": fit.votes_needed,
        "probability_best": fit.probability_best.tolist(),
    }


def _figures(curve: Curve, index: int) -> dict[str, Any]:
    return {
        "score": curve.score[index],
        "change": asdict(curve.change[index]),
        "band": asdict(curve.band[index]),
        "pairs": curve.pairs[index],
        "wins": asdict(curve.wins[index]),
        "wins_anchor": None if curve.wins_anchor is None else asdict(curve.wins_anchor[index]),
    }


def _plain(value: Any) -> Any:
    """The same of builtin types, None for numbers that JSON doesn't have."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""A comparison small enough to run in seconds: embedded anchors of two betas, two training seeds at one of them."""

from typing import Any

from deradiff import testbed
from deradiff.compare import Aligned, Comparison

ANCHOR, SISTER, WEAKER = "warmth-beta0.05-seed0", "warmth-beta0.05-seed1", "warmth-beta0.1-seed0"
PROMPTS = ["a large blue circle on a white background", "a small red square on a green background"]
REWARDS = ["warmth"]


def locate(name: str) -> str:
    return str(testbed.anchor_path(name))


def aligned(name: str) -> Aligned:
    return Aligned.read(name, locate(name))


def comparison(**changes: Any) -> Comparison:
    given: dict[str, Any] = {
        "anchors": [aligned(ANCHOR)],
        "retrained": [aligned(ANCHOR), aligned(SISTER), aligned(WEAKER)],
        "model": "embedded",
        "prompts": PROMPTS,
        "seeds": [0, 1],
        "guidance": 1.0,
        "steps": 2,
        "batch_size": 4,
    }
    return Comparison.from_models(**{**given, **changes})

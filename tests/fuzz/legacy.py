"""Files of a run of version 0.1."""

import json
from typing import Any

_PLAN: dict[str, Any] = {
    "model": "m", "anchor": "a", "prompts": ["a", "b"], "seeds": [0], "lams": [0.0, 1.0], "guidances": [None],
    "anchor_beta": 0.1, "steps": 5, "batch_size": 2, "mode": "exact", "quality": None, "particles": 1,
}  # fmt: skip
_INFO = {"calls": 30, "calls_published": 30, "tolerance": None, "checks": [{"error": 0.1, "calls": 3}]}
_CELLS = {"kind": "batch", "sha256": ["0" * 64] * 2, "paths": {"q": [8.0, 1.0], "distinct": [None, 2.0]}, "info": _INFO}
_SCORE = {"kind": "score", "reward": "r", "info": {"direction": "higher"}, "scores": [1.0, 2.0]}

PLAN = json.dumps(_PLAN).encode()
JOURNAL = b"".join(json.dumps({**_CELLS, "batch": batch}).encode() + b"\n" for batch in (0, 1))
SCORES = b"".join(json.dumps({**_SCORE, "batch": batch}).encode() + b"\n" for batch in (0, 1))

"""Reading what a person gives on a command line: prompts from files, lams and betas from short texts."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from deradiff.errors import PlanError
from deradiff.mixture import lam_from_beta


def read_prompts(path: Path) -> list[str]:
    """Prompts from a file: ``.txt`` (one a line), ``.csv`` or ``.jsonl`` (column ``prompt``); each prompt once.

    Raises:
        PlanError: no such file, an unknown kind, no column ``prompt``, or no prompt in it.
    """
    if not path.is_file():
        raise PlanError(f"no prompt file at {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            prompts = text.splitlines()
        elif path.suffix == ".csv":
            prompts = [row["prompt"] for row in csv.DictReader(io.StringIO(text))]
        elif path.suffix == ".jsonl":
            prompts = [json.loads(line)["prompt"] for line in text.splitlines() if line.strip()]
        else:
            raise PlanError(f"{path}: prompts are read from .txt, .csv or .jsonl, not {path.suffix or 'a bare name'!r}")
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise PlanError(f"{path}: expected a column named prompt in every row ({error!r})") from error
    kept = list(dict.fromkeys(prompt.strip() for prompt in prompts if prompt and prompt.strip()))
    if not kept:
        raise PlanError(f"{path} holds no prompt")
    return kept


def parse_lams(text: str) -> list[float]:
    """Lams from ``0,0.5,1`` or ``start:stop:count`` (evenly spaced, both ends included), or a list of the two.

    Raises:
        PlanError: not such a text.
    """
    lams: list[float] = []
    for part in text.split(","):
        try:
            if ":" in part:
                start, stop, count = part.split(":")
                lams += [round(float(lam), 10) for lam in np.linspace(float(start), float(stop), int(count))]
            else:
                lams.append(float(part))
        except ValueError as error:
            raise PlanError(f"can't read lams {text!r}: expected numbers like 0,0.5,1 or start:stop:count") from error
    if not lams:
        raise PlanError(f"there is no lam in {text!r}: expected numbers like 0,0.5,1 or start:stop:count")
    return sorted(set(lams))


def lams_for_betas(text: str, anchor_beta: float | None) -> list[float]:
    """The lams at which an anchor of ``anchor_beta`` stands for models aligned at these betas (``500,1000,5000``).

    The reference, lam = 0, comes first: whatever is gained is gained over it.

    Raises:
        PlanError: not numbers, or the anchor's beta isn't known.
    """
    if anchor_beta is None:
        raise PlanError(
            "betas are turned into lam = anchor beta / beta, but the anchor's beta isn't known: give --anchor-beta"
        )
    try:
        return sorted({0.0, *(lam_from_beta(anchor_beta, float(part)) for part in text.split(","))})
    except ValueError as error:
        raise PlanError(f"can't read betas {text!r}: expected positive numbers like 500,1000,5000 ({error})") from error

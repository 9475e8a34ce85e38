"""Runs of version 0.1, laid out as that version wrote them."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deradiff.errors import RunFolderError
from deradiff.runs.legacy import open_run_folder
from deradiff.runs.results import load_results

PROMPTS, SEEDS, LAMS = ["b prompt", "a prompt", "c prompt"], [0, 1], [0.0, 0.5, 1.0]
PLAN: dict[str, Any] = {
    "model": "m", "anchor": "a", "prompts": PROMPTS, "seeds": SEEDS, "lams": LAMS, "guidances": [None],
    "anchor_beta": 0.1, "component": None, "scheduler": None, "steps": 5, "height": None, "width": None,
    "dtype": "float32", "batch_size": 3, "mode": "exact", "refresh": None, "quality": None, "diagnostics": True,
    "particles": 1,
}  # fmt: skip


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def write_legacy(folder: Path, **changes: Any) -> dict[tuple[str, int, float], str]:
    """Six batches of one (prompt, seed) at every lam; returns each image's sha256."""
    (folder / "images" / "ab").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({**PLAN, **changes}))
    digests: dict[tuple[str, int, float], str] = {}
    lines, scores = [], []
    pairs = [(prompt, seed) for prompt in PROMPTS for seed in SEEDS]
    for batch, (prompt, seed) in enumerate(pairs):
        own = [png(10 * batch + number) for number in range(len(LAMS))]
        for number, content in enumerate(own):
            (folder / "images" / "ab" / f"{batch}-{number}.png").write_bytes(content)
            digests[prompt, seed, LAMS[number]] = hashlib.sha256(content).hexdigest()
        info = {"calls": 30, "calls_published": 30, "tolerance": None, "checks": []}
        record = {"sha256": [hashlib.sha256(content).hexdigest() for content in own], "path_kl": [0.0, 1.0, 4.0]}
        paths = {"q": [8.0] * 3, "implicit_reward": [None, 1.0, 2.0], "distinct": [None, 2.0, None]}
        lines.append({"kind": "batch", "batch": batch, "edition": 0, **record, "paths": paths, "info": info})
        scores.append({"kind": "score", "batch": batch, "edition": 0, "reward": "r", "info": {"direction": "higher"}})
        scores[-1]["scores"] = [batch + lam for lam in LAMS]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(lines)))
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in scores))
    return digests


def old_files(folder: Path) -> dict[str, bytes]:
    names = [
        "plan.json",
        "journal.jsonl",
        "scores.jsonl",
        *(f"images/ab/{b}-{n}.png" for b in range(6) for n in range(3)),
    ]
    return {name: (folder / name).read_bytes() for name in names}


def test_every_image_score_and_statistic_is_read_and_nothing_old_changes(tmp_path: Path) -> None:
    digests, before = write_legacy(tmp_path), old_files(tmp_path)
    results = load_results(open_run_folder(tmp_path))
    assert old_files(tmp_path) == before
    assert (list(results.prompts), list(results.seeds), list(results.lams)) == (sorted(PROMPTS), SEEDS, LAMS)
    for (p, s, i), file in np.ndenumerate(results.images):
        prompt, seed, lam = str(results.prompts[p]), results.seeds[s], results.lams[i]
        assert hashlib.sha256(Path(file).read_bytes()).hexdigest() == digests[prompt, seed, lam]
        batch = PROMPTS.index(prompt) * 2 + seed
        assert results.scores["r"][p, s, i] == batch + lam
    assert results.path_kl is not None
    np.testing.assert_allclose(results.path_kl[0, 0], [0.0, 1.0, 4.0])
    assert results.paths["ancestors"][0, 0, 1] == 2
    assert results.missing == 0
    assert results.anchor_beta == 0.1


def test_reading_twice_changes_nothing(tmp_path: Path) -> None:
    write_legacy(tmp_path)
    open_run_folder(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.json*")}
    open_run_folder(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json*")} == first


def test_what_was_not_sampled_is_missing(tmp_path: Path) -> None:
    write_legacy(tmp_path)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_text("".join(lines[2:]))
    scored = (tmp_path / "scores.jsonl").read_text().splitlines(keepends=True)[:4]
    (tmp_path / "scores.jsonl").write_text("".join(scored))
    results = load_results(open_run_folder(tmp_path))
    assert results.missing == 6


@pytest.mark.parametrize("damage", ["{", '{"batch": 0}', "[]"])
def test_a_damaged_line_is_named_and_nothing_is_begun(tmp_path: Path, damage: str) -> None:
    write_legacy(tmp_path)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(damage + "\n")
    with pytest.raises(RunFolderError, match=r"journal\.jsonl, line 7"):
        open_run_folder(tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    write_legacy(tmp_path, steps=-1)
    with pytest.raises(RunFolderError, match=r"plan\.json is damaged .*steps"):
        open_run_folder(tmp_path)


def test_an_old_search_says_how_to_put_its_rounds_together(tmp_path: Path) -> None:
    write_legacy(tmp_path / "rounds" / "001")
    (tmp_path / "search.json").write_text(json.dumps(PLAN))
    with pytest.raises(RunFolderError, match="deradiff merge"):
        open_run_folder(tmp_path)

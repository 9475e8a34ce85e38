"""``tune``: its stages are commands, each done once; it ends where nothing is shown to be better."""

import shutil
from pathlib import Path

import pytest
from tests.cli.shell import here, mistaken
from tests.runs.painted import painted

from deradiff import testbed

PROMPTS = testbed.prompts(12, seed=3)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "prompts.txt").write_text("".join(f"{text}\n" for text in PROMPTS))
    (tmp_path / "two.txt").write_text("a red circle\na blue square\n")
    (tmp_path / "align.yaml").write_text("steps: 1\ntrain-batch-size: 2\nrank: 1\nimages: 2\nsampling-steps: 2\n")
    given = ["tune", "--beta", "0.05", "--self-label", "warmth", "--align-config", str(tmp_path / "align.yaml")]
    return [
        *given,
        "--objective",
        "warmth",
        "--risk",
        "0.3",
        "--seeds",
        "1",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]


def times(folder: Path) -> dict[str, int]:
    """When each file of weights, images and pages was written."""
    kinds = (".safetensors", ".png", ".html", ".pt")
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.suffix in kinds}


def test_all_stages_are_done_once(words: list[str], tmp_path: Path, quick: None) -> None:
    out, prompts = tmp_path / "out", ["--prompts", str(tmp_path / "prompts.txt")]
    untrained = here(*words, *prompts, "--max-images", "36", code=1)
    assert "nothing to bake: no lam above 0 is shown to be better" in untrained.stderr
    assert (out / "run" / "report.html").is_file()
    assert not (out / "baked").exists()
    anchor = out / "anchor" / "pytorch_lora_weights.safetensors"  # as a real training would leave it
    shutil.copy(testbed.anchor_path("warmth-beta0.0125-seed0") / anchor.name, anchor)
    shutil.rmtree(out / "run")
    trained = times(out / "anchor")
    printed = here(*words, *prompts, "--max-images", "60")
    assert "align is done: deradiff align" in printed.stderr
    assert "is baked in" in printed.stdout
    assert all(name in printed.stdout for name in ("align", "search", "report.html", "bake.html", "load_lora_weights"))
    assert times(out / "anchor") == trained
    assert (out / "baked" / "pytorch_lora_weights.safetensors").is_file()
    before = times(out)
    here(*words, *prompts, "--max-images", "60")
    assert times(out) == before


def test_a_dry_run_prints_commands_and_costs_and_makes_nothing(words: list[str], tmp_path: Path) -> None:
    printed = here(*words, "--prompts", str(tmp_path / "two.txt"), "--guard", "faithfulness:-10%", "--dry-run").stdout
    commands = [line.split()[1] for line in printed.splitlines() if line.startswith("  deradiff")]
    assert commands == ["align", "search", "report", "bake"]
    assert "2 images a prompt at 2 steps to make pairs of, then 1 steps of 2 pairs" in printed
    assert "some of 66 images, 264 NFE for all of them" in printed  # 2 prompts x 33 lams, 2 x 2 NFE each
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--data", "x"], "give either --data"),
        (["--model", "mine"], "no prompts to choose lam on: give --prompts FILE"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--seeds", "x"], "seeds"),
        (["--objective", "wramth"], "no reward is called 'wramth'"),
        (["--self-label", "wramth"], "no reward is called 'wramth'"),
        (["--guard", "foo:bar"], "foo:bar"),
        (["--guard", "fidelity"], "no reward is called 'fidelity'"),
        (["--risk", "0.9"], "risk"),
        (["--beta", "-1"], "beta"),
        (["--max-images", "3"], "the first round takes"),
        (["--guidance", "nan"], "--guidance is nan"),
        (["--distil", "3"], "can't use the time '3'"),
        (["--align-config", "nowhere.yaml"], "--align-config nowhere.yaml is no file"),
        (["--align-config", "OUT.yaml"], "has beta, which tune sets itself"),
        (["--out", "prompts.txt"], "is a file; give a folder"),
        (["--objective", "clip=/nowhere"], "the files of the reward clip are to be in /nowhere"),
        (["--objective", "warmth=/nowhere"], "takes no files"),
        (["--objective", "votes"], "votes are people's"),
        (["--out", "x" * 300], "File name too long"),
        (["--out", "taken"], "is a file, where tune needs a folder"),
        (["--out", "run"], "is a run; give a folder of its own"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_mistakes_are_reported_before_anything_is_made(
    more: list[str],
    expected: str,
    dry: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OUT.yaml").write_text("beta: 5\n")
    painted(tmp_path / "run")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "run").write_text("")
    mistaken(*words, *more, *dry, expected=expected)
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_there_is_reported_first(words: list[str], tmp_path: Path) -> None:
    at = words.index("--self-label")
    mistaken(*words[:at], "--data", "nowhere", *words[at + 2 :], expected="--data nowhere isn't there")
    assert not (tmp_path / "out").exists()

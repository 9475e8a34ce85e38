"""``deradiff align`` from the shell."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from tests.align.trainings import preferences
from tests.hub.recorder import Recorder
from tests.hub.recorder import hub as hub
from typer.testing import CliRunner

from deradiff import testbed
from deradiff.anchor.source import card_of
from deradiff.cli.commands import app
from deradiff.compare.aligned import Aligned, check_conventions
from deradiff.errors import DeradiffError
from deradiff.runs.run import Run

from .shell import here

FEW = ("--steps", "2", "--train-batch-size", "2", "--rank", "2")


def test_own_samples_to_an_anchor_that_is_swept(tmp_path: Path, hub: Recorder) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\na large blue square\n")
    own = (
        "--self-label",
        "warmth",
        "--prompts",
        str(tmp_path / "prompts.txt"),
        "--images",
        "2",
        "--sampling-steps",
        "2",
    )
    push = ("--push-to-hub", "org/name", "--private")
    made = here("align", "--beta", "0.1", *own, *FEW, "--out", str(tmp_path / "anchor"), *push)
    assert [name for name, _ in hub.calls] == ["create_repo", "upload_folder"]
    assert sorted(hub.calls[1][1]["allow_patterns"]) == ["README.md", "pytorch_lora_weights.safetensors"]
    assert "pushed to https://huggingface.co/org/name" in made.stdout
    readme = (tmp_path / "anchor" / "README.md").read_text()
    assert "| beta | 0.1 |" in readme
    assert "| convention of beta | kl " in readme
    assert "of the reward warmth" in readme
    assert f"deradiff sweep --model embedded --anchor {tmp_path / 'anchor'}" in made.stdout
    with safe_open(tmp_path / "anchor" / "pytorch_lora_weights.safetensors", "pt") as file:
        card = json.loads(file.metadata()["deradiff"])
    convention = card_of(testbed.anchor_path())["beta_convention"]
    assert card["beta_convention"] == {name: pytest.approx(value) for name, value in convention.items()}
    comparable = [str(tmp_path / "anchor"), str(testbed.anchor_path())]
    check_conventions([Aligned.read(name, name) for name in comparable])  # though another machine made one
    assert (card["beta"], card["reward"], card["reference"]) == (0.1, "warmth", "embedded")
    sweep = (
        "--prompt",
        "a red circle",
        "--seeds",
        "1",
        "--steps",
        "2",
        "--betas",
        "0.1,0.2",
        "--anchor",
        str(tmp_path / "anchor"),
    )
    here("sweep", *sweep, "--out", str(tmp_path / "run"))
    run = Run(tmp_path / "run")
    assert (run.results().lams, run.recipe.anchor_beta) == ((0, 0.5, 1), 0.1)


def test_given_preferences_and_what_was_skipped(tmp_path: Path) -> None:
    preferences(tmp_path / "pairs")
    with (tmp_path / "pairs" / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": " ", "chosen": "chosen0.png", "rejected": "rejected0.png", "probability": 1}\n')
    made = here("align", "--beta", "0.1", "--data", str(tmp_path / "pairs"), *FEW, "--out", str(tmp_path / "anchor"))
    assert "6 pairs in" in made.stderr
    assert "skipped 1: empty prompt" in made.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "give either --data"),
        (("--data", "pairs", "--self-label", "warmth"), "give either --data"),
        (("--data", "nowhere"), "nowhere"),
        (("--self-label", "warmth", "--model", "some/model"), "some/model"),
        (("--self-label", "nonsense"), "no reward is called 'nonsense'"),
        (("--data", "pairs", "--train-batch-size", "0"), "train_batch_size"),
        (("--data", "pairs", "--convention", "KL"), "convention is 'KL': expected one of kl, sdxl-script, sd15-script"),
        (("--data", "pairs", "--height", "100", "--width", "100"), "height is 100; expected a multiple of 8"),
        (("--data", "pairs", "--images", "7"), "--images goes with --self-label alone"),
        (("--self-label", "warmth", "--split", "train"), "--split goes with --data alone"),
        (("--self-label", "warmth", "--sampling-guidance", "inf"), "--sampling-guidance is inf"),
        (("--self-label", ":f"), "can't read the reward ':f': expected module:function"),
    ],
)
def test_what_cannot_be_done_is_reported(tmp_path: Path, given: tuple[str, ...], told: str) -> None:
    failed = CliRunner().invoke(app, ["align", "--beta", "0.1", *given, "--out", str(tmp_path / "anchor")])
    assert isinstance(failed.exception, DeradiffError)
    assert told in str(failed.exception)
    assert not (tmp_path / "anchor").exists()

"""``bake`` and ``extract-lora`` on the command line, from models and from runs."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from tests.cli.shell import here, mistaken
from tests.hub.recorder import TOKEN, Recorder
from tests.hub.recorder import hub as hub

import deradiff
from deradiff import testbed
from deradiff.cli.parsing import parse_duration
from deradiff.errors import ConfigError

STEPS = ("--steps", "2")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("a red circle\na blue square\n")
    return file


def card(file: Path) -> dict[str, object]:
    with safe_open(file, "pt") as weights:
        return json.loads(weights.metadata()["deradiff"])


def test_a_model_is_baked_measured_and_shown(prompts: Path, tmp_path: Path) -> None:
    printed = here(
        "bake", "embedded", "--lam", "0.5", *STEPS, "--prompts", str(prompts), "--out", str(tmp_path / "a")
    ).stdout
    assert "of what realignment changes (mean of 2 prompts)" in printed
    page = (tmp_path / "a" / "bake.html").read_text()
    assert page.count("<figure>") == 2
    assert "weight interpolation, not the mixture" in page
    readme = (tmp_path / "a" / "README.md").read_text()
    assert "| lam | 0.5 |" in readme
    assert "mean of 2 prompts" in readme
    assert str(tmp_path) not in readme
    assert card(tmp_path / "a" / "pytorch_lora_weights.safetensors") | {"lam": 0.5, "kind": "weights"} == card(
        tmp_path / "a" / "pytorch_lora_weights.safetensors"
    )


def test_cards_name_the_anchor_its_beta_and_each_lam(prompts: Path, tmp_path: Path) -> None:
    words = ["bake", "embedded", "--prompts", str(prompts), *STEPS, "--out", str(tmp_path / "a")]
    here(*words, "--lam", "0.5625")
    written = card(tmp_path / "a" / "pytorch_lora_weights.safetensors")
    assert written["anchor"] == f"embedded:{testbed.DEFAULT_ANCHOR}"
    one, other = "embedded:warmth-beta0.05-seed0", "embedded:warmth-beta0.1-seed0"
    here(*words, "--anchor", one, "--lam", "0.5625")
    assert card(tmp_path / "a" / "pytorch_lora_weights.safetensors")["beta"] == pytest.approx(0.05 / 0.5625)
    assert "# A bake at lam = 0.5625\n" in (tmp_path / "a" / "README.md").read_text()
    here(*words, "--anchor", one, "--lam", "0.6", "--anchor", other, "--lam", "0.3")
    assert "beta" not in card(tmp_path / "a" / "pytorch_lora_weights.safetensors")
    assert "# A bake at lam = 0.6, 0.3\n" in (tmp_path / "a" / "README.md").read_text()


def test_a_bake_is_pushed_once_its_repository_is_there(prompts: Path, tmp_path: Path, hub: Recorder) -> None:
    words = ["bake", "embedded", "--lam", "0.5", *STEPS, "--prompts", str(prompts), "--out", str(tmp_path / "a")]
    mistaken(*words, "--private", expected="--private goes with --push-to-hub")
    hub.private = False
    mistaken(*words, "--push-to-hub", "org/name", "--private", expected="already and public")
    assert not (tmp_path / "a").exists()
    printed = here(*words, "--push-to-hub", "org/name")
    assert "pushed to https://huggingface.co/org/name" in printed.stdout
    assert TOKEN not in printed.stdout + printed.stderr
    [(_, pushed)] = [call for call in hub.calls if call[0] == "upload_folder"]
    assert sorted(pushed["allow_patterns"]) == ["README.md", "pytorch_lora_weights.safetensors"]


def test_a_run_is_baked_with_its_own_models_prompts_and_beta(prompts: Path, tmp_path: Path) -> None:
    here("sweep", "--prompts", str(prompts), "--lams", "0,1", "--seeds", "1", *STEPS, "--out", str(tmp_path / "run"))
    words = ["bake", str(tmp_path / "run"), "--lam", "0.5", "--format", "kohya", "--rewards", "warmth"]
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    mistaken(*words, *STEPS, "--out", str(tmp_path / "run"), expected="is a run; give a folder of its own")
    inside = tmp_path / "run" / "mine"
    printed = here(*words, *STEPS, "--out", str(inside)).stdout
    assert "mean of 2 prompts" in printed
    assert "warmth: " in printed
    assert card(inside / "mine.safetensors")["beta"] == pytest.approx(0.2 / 0.5)  # beta / lam
    assert all(file.read_bytes() == content for file, content in before.items())
    assert deradiff.Run(tmp_path / "run").is_complete()


def test_a_run_whose_anchor_changed_is_not_baked(prompts: Path, tmp_path: Path) -> None:
    anchor, run = tmp_path / "anchor", tmp_path / "run"
    shutil.copytree(testbed.anchor_path(), anchor)
    words = ["--prompts", str(prompts), "--anchor", str(anchor), "--lams", "0,1", "--seeds", "1", *STEPS]
    here("sweep", *words, "--out", str(run))
    shutil.copytree(testbed.anchor_path("warmth-beta0.1-seed0"), anchor, dirs_exist_ok=True)
    mistaken(
        "bake", str(run), "--lam", "0.5", "--out", str(tmp_path / "out"), expected="with other weights of its anchor"
    )
    assert not (tmp_path / "out").exists()
    here("bake", str(run), "--lam", "0.5", "--anchor", str(anchor), "--out", str(tmp_path / "out"))


def test_several_anchors_and_a_distillation(prompts: Path, tmp_path: Path) -> None:
    anchors = [
        word for name in ("warmth-beta0.1-seed0", "warmth-beta0.2-seed0") for word in ("--anchor", f"embedded:{name}")
    ]
    words = ["bake", "embedded", *anchors, "--lam", "0.5", "--lam", "0.3", *STEPS, "--prompts", str(prompts)]
    printed = here(*words, "--distil", "1s", "--out", str(tmp_path / "two")).stdout
    told = card(tmp_path / "two" / "pytorch_lora_weights.safetensors")
    assert told["kind"] == "distilled" or "distillation came no nearer" in str(told["note"])
    assert str(told["note"]) in printed
    assert str(told["distillation"]) in printed


def test_a_lora_is_extracted_from_a_full_anchor(prompts: Path, tmp_path: Path) -> None:
    words = ["bake", "embedded", "--lam", "1", "--format", "checkpoint", *STEPS, "--prompts", str(prompts)]
    here(*words, "--out", str(tmp_path / "full"))
    words = ["extract-lora", "embedded", "--anchor", str(tmp_path / "full"), "--energy", "0.999"]
    printed = here(*words, "--out", str(tmp_path / "lora")).stdout
    assert "leaves out" in printed
    assert (tmp_path / "lora" / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("embedded", "--lam", "0.5", "--lam", "0.3"), "got 1 anchors and 2 lams; give --lam once for each --anchor"),
        (("embedded", "--lam", "nan"), "lam must be finite"),
        (("embedded", "--lam", "0.5", "--distil", "soon"), "expected one like 90s, 5min or 2h"),
        (("embedded", "--lam", "0.5", "--fold-guidance"), "give --distil TIME too"),
        (
            ("embedded", "--lam", "0.5", "--fold-guidance", "--distil", "1s"),
            "guidance is 1.0; to fold guidance in, give",
        ),
        (("embedded", "--lam", "0.5", "--format", "checkpoint", "--rank", "4"), "which are for LoRAs"),
        (("embedded", "--lam", "0"), "the bake changes nothing"),
        (("embedded", "--lam", "0.5", "--rewards", "nothing"), "nothing"),
    ],
)
def test_mistakes_are_told(words: tuple[str, ...], expected: str, prompts: Path, tmp_path: Path) -> None:
    mistaken("bake", *words, *STEPS, "--prompts", str(prompts), "--out", str(tmp_path / "out"), expected=expected)


def test_another_model_needs_an_anchor_and_prompts(prompts: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    mistaken("bake", str(tmp_path), "--lam", "0.5", "--prompts", str(prompts), *out, expected="--anchor is missing")
    anchor = str(testbed.anchor_path())
    mistaken("bake", str(tmp_path), "--anchor", anchor, "--lam", "0.5", *out, expected="no prompts")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5min", 300), ("1.5 h", 5400)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "-1s", "5 minutes", "1e3s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected one like"):
        parse_duration(text)

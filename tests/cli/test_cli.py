"""The command line as a person runs it: real files, the embedded pipeline, and real processes where these matter."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.shell import deradiff, here, mistaken
from tests.runs.small_runs import contents

from deradiff.cli import common, main

LONG = "x" * 5000
ANCHOR = "embedded:warmth-beta0.2-seed0"
COMPARE = ["compare", "--rewards", "warmth", "--prompt", "a red circle", "--prompt", "a blue square"]


def test_help_imports_nothing_heavy() -> None:
    """What makes --help instant: torch and diffusers are left alone."""
    code = "import sys, deradiff.cli.commands; print([m for m in ('torch', 'diffusers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "sweep" in deradiff("--help").stdout


def test_sweep_reports_and_the_same_command_goes_on_where_it_was(tmp_path: Path) -> None:
    prompts, run = tmp_path / "prompts.txt", tmp_path / "run"
    prompts.write_text("a large blue circle on a white background\na small red square on a green background\n")
    words = ["sweep", "--prompts", str(prompts), "--lams", "0:2:3", "--seeds", "1", "--steps", "2", "--out", str(run)]
    words += ["--rewards", "warmth,faithfulness", "--guard", "faithfulness"]
    first = deradiff(*words).stdout
    assert first.splitlines()[-1].startswith("recommended lam: ")
    assert (run / "report.html").is_file()
    assert len(list((run / "images").rglob("*.png"))) == 6
    estimated, took, answer = first.split("\n", 2)
    assert estimated.startswith("6 images to sample: 24 NFE")
    assert took.startswith(f"6 images in {run}: 24 NFE, 100% of the naive cost")
    before = contents(run)
    again = here(*words).stdout
    assert again.split("\n", 1) == [f"complete: all 6 images asked for are in {run}", answer]
    assert contents(run) == before
    assert json.loads((run / "run.json").read_text())["recipe"]["anchor_beta"] > 0

    chosen = here("recommend", str(run), "--objective", "warmth").stdout.splitlines()[-1]
    assert chosen.startswith("recommended lam: ")
    here("score", str(run), "--rewards", "scene_distance")
    assert "scene_distance" in (run / "rewards.jsonl").read_text()
    refused = here(*words[:-4], "--steps", "3", code=2).stderr
    assert "another recipe (steps was 2, now 3); give another --out" in refused


@pytest.mark.parametrize(("name", "kind"), [("row.png", "PNG"), ("row.JPG", "JPEG"), ("row.webp", "WEBP")])
def test_generate_draws_a_row(tmp_path: Path, name: str, kind: str) -> None:
    out = tmp_path / "new" / name
    lams = "0,1,2" if kind == "PNG" else "1"
    printed = here("generate", "a large blue circle", "--lam", lams, "--steps", "2", "--out", str(out))
    with Image.open(out) as image:
        assert image.size == ((3 if kind == "PNG" else 1) * 64, 64)
        assert image.format == kind
    assert "sampling" in printed.stderr
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_an_image_that_cannot_be_drawn_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"before")
    here("generate", "x", "--scheduler", "Nonsense", "--out", str(tmp_path / "x.png"), code=2)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.png", b"before")]


def test_a_word_without_an_end_does_not_fill_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["deradiff", "generate", "x", "--out", f"{LONG}.gif"])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert "[...]" in error
    assert len(error) < 2500


def test_a_reward_may_lie_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def red(pixels, prompts):\n    return pixels[:, 0].mean((1, 2))\n")
    words = ["sweep", "--prompt", "a red circle", "--prompt", "a blue square", "--seeds", "1", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["deradiff", *words, "--betas", "0.2", "--rewards", "mine:red", "--out", "run"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(common, "hush", lambda: None)
    with pytest.raises(SystemExit, match="0"):
        main()
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sweep"], "no prompts"),
        (["sweep", "--prompts", "missing.txt"], ".json or .txt), or a folder"),
        (["sweep", "--prompt", "x", "--lams", "0:2"], "'0:2' has not three parts"),
        (["sweep", "--prompt", "x", "--rewards", "no_such:x"], "No module named 'no_such'; modules are looked for in"),
        (["sweep", "--prompt", "x", "--lams", "0:1:1"], "the count is 1; expected 2 to 10,000"),
        (["sweep", "--prompt", "x", "--rewards", "a/path.py:x"], "the module (a name, not a file) can be imported"),
        (["sweep", "--prompt", "x", "--height", "60", "--width", "64"], "height is 60; expected a multiple of 8"),
        (["sweep", "--prompt", "x", "--guidance", "much"], "guidances 'much'"),
        (["sweep", "--prompt", "x", "--refresh", "2"], "policy='reuse'"),
        (["sweep", "--prompt", "x", "--target-error", "1%"], "policy='adaptive'"),
        (["sweep", "--prompt", "x", "--policy", "adaptive", "--target-error", "200%"], "1%"),
        (["sweep", "--prompt", "x", "--policy", "adaptive", "--particles", "2"], "policy='exact'"),
        (["sweep", "--prompt", "x", "--prompt", "x"], "'x' is given twice"),
        (["sweep", "--prompt", "x", "--height", "64"], "height and width go together"),
        (["sweep", "--prompt", "x", "--shard", "0/2"], "1/4"),
        (["sweep", "--prompt", "x", "--prompt", "y", "--shard", "1/2", "--rewards", "warmth"], "leave out --rewards"),
        (["sweep", "--prompt", "x", "--offload"], "give --device"),
        (["sweep", "--prompt", "x", "--dtype", "int8"], "bfloat16"),
        (["sweep", "--prompt", "x", "--lams", "0,nan"], "finite"),
        (["sweep", "--prompt", "x", "--lams", "0", "--betas", "1"], "not both"),
        (["sweep", "--prompt", "x", "--rewards", "nonsense"], "faithfulness"),
        (["sweep", "--prompt", "x", "--anchor", "no/such"], "no/such"),
        (["sweep", "--prompt", "x", "--guard", "warmth"], "not among --rewards"),
        (["sweep", "--prompt", "x", "--rewards", "warmth", "--guard", "warmth"], "'warmth' is named twice"),
        (["sweep", "--prompt", "x", "--rewards", "warmth,faithfulness", "--guard", "faithfulness:0"], "margin of 0"),
        (["recommend", "run", "--objective", "a", "--guard", "b:-0"], "such as b:-1%"),
        (["recommend", "run", "--objective", "a", "--risk", "0.6"], "at most 0.5"),
        (["sweep", "--prompt", "x", "--rewards", "warmth"], "2 prompts"),
        (["sweep", "--prompt", "x", "--prompt", "y", "--lams", "1,2", "--rewards", "warmth"], "lam = 0"),
        (["sweep", "--prompt", "x", "--seeds", "1", "--rewards", "diversity"], "at least 2 seeds"),
        (["sweep", "--prompt", "x", "--device", "nonsense"], "nonsense"),
        (["sweep", "--prompt", "x", "--anchor", "embedded:nonsense"], "warmth-"),
        (["generate", "x", "--model", "no/such"], "no/such"),
        (["generate", "x", "--lam", "much"], "start:stop:count"),
        (["generate", "x", "--out", "x.gif"], ".png, .jpg, .jpeg, .webp"),
        (["generate", "x", "--out", "a-folder.png"], "can't write a-folder.png: a folder is in the way"),
        (["generate", "x", "--out", "a-file/x.png"], "can't write a-file/x.png"),
        (["generate", "x", "--out", f"{LONG}.png"], "File name too long"),
        (["generate", "x", "--model", "other/model"], "--anchor is missing: other/model needs"),
        (["sweep", "--prompt", "x", "--model", "other/model"], "--anchor is missing: other/model needs"),
        ([*COMPARE, "--model", "other/model"], "--anchor is missing: other/model needs"),
        ([*COMPARE, "--model", "other/model", "--anchor", "a"], "--retrained is missing: other/model needs"),
        (["sweep", "--prompt", "x", "--anchor", "pickles"], "pickles holds only pickles"),
        (["sweep", "--prompt", "x", "--model", "pickles", "--anchor", ANCHOR], "it has no model_index.json"),
        (["sweep", "--prompt", "x", "--model", "a-pipe", "--anchor", ANCHOR], "is neither a folder nor a file"),
        (["sweep", "--prompt", "x", "--model", "a-file", "--anchor", ANCHOR], "is no .safetensors file"),
        (["sweep", "--prompt", "x", "--model", LONG, "--anchor", ANCHOR], "File name too long"),
        (["sweep", "--prompt", "x", "--anchor", LONG], "File name too long"),
        (["sweep", "--prompt", "x", "--out", LONG], "File name too long"),
        (["sweep", "--prompt", "x", "--out", "a-loop"], "--out a-loop can't be a folder (Too many levels"),
        (["search", "--objective", "warmth", "--out", LONG], "File name too long"),
        (["align", "--beta", "1", "--out", LONG], "File name too long"),
        ([*COMPARE, "--out", LONG], "File name too long"),
        (["sweep", "--prompts", LONG], "File name too long"),
        (["align", "--beta", "1", "--out", "o", "--data", LONG], "File name too long"),
        (["align", "--beta", "1", "--out", "o", "--self-label", "warmth", "--revision", "v2"], "has no revision 'v2'"),
        (["align", "--config", "a-pipe"], "--config a-pipe can't be read (no regular file)"),
        (["sweep", "--prompt", "x", "--revision", "v2"], "has no revision 'v2'; leave the revision out"),
        (["sweep", "--prompt", "x", "--variant", "fp16"], "no weights of the variant 'fp16'"),
        (["sweep", "--prompt", "x", "--subfolder", "x"], "has no subfolder 'x'"),
        (["sweep", "--prompt", "x", "--anchor-revision", "v2"], "has no revision 'v2'; leave the revision out"),
        (["sweep", "--prompt", "x", "--anchor-variant", "fp16"], "has no variants; leave 'fp16' out"),
        (["sweep", "--prompt", "x", "--anchor-weight-name", "x"], "has no file 'x'; it holds"),
        ([*COMPARE, "--anchor-weight-name", "x"], "has no file 'x'; it holds"),
        (["sweep", "--prompt", "x", "--seeds", "0"], "a count is from 1 to 1,000,000"),
        (["sweep", "--prompt", "x", "--seeds", "1,,2"], "expected a count like 4, or seeds like 0,7,42, or 7, for one"),
        (["sweep", "--prompt", "x", "--seeds", "1,1"], "the seed 1 is given twice"),
        (["sweep", "--prompt", "x", "--delimiter", ";"], "say how --prompts is read: give it"),
        (["sweep", "--prompts", "a.csv", "--delimiter", "ab"], "expected one character, such as ';', or tab"),
        (["generate", "x", "--scheduler", "Nonsense"], "EulerDiscreteScheduler"),
        (["report", "nowhere", "--objective", "warmth"], "no run folder"),
        (["report", "one", "two", "three", "--objective", "warmth"], "expected one run or two"),
        (["score", "nowhere", "--rewards", "warmth"], "no run folder"),
        (["export", "nowhere", "--out", "t.csv"], "no run folder"),
        (["merge", "nowhere", "--out", "run"], "no run folder"),
        (["sweep", "--prompt", "x", "--out", "a-file"], "a-file is a file"),
    ],
)
def test_mistakes_are_one_clear_line_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    (tmp_path / "a-folder.png").mkdir()
    (tmp_path / "a-loop").symlink_to("a-loop")
    os.mkfifo(tmp_path / "a-pipe")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_lora_weights.bin").touch()
    before = sorted(tmp_path.rglob("*"))
    error = here(*words, code=2).stderr
    assert expected in error
    assert error.startswith("Error: ") or "Usage: " in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["sweep"], ["report", "nowhere", "--objective", "warmth"]])
def test_a_mistake_of_a_person_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mistaken(*words, expected="Error: no")


def test_an_error_that_nobody_foresaw_is_one_line_and_a_file_to_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> None:
        raise RecursionError("deep\nin somebody's code")

    monkeypatch.setattr("deradiff.cli.commands.app", fail)
    monkeypatch.setattr("sys.argv", ["deradiff", "rewards"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 70
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    file = re.search(r"report it with (\S+) and", text)
    assert file is not None
    assert "in fail" in Path(file[1]).read_text()
    assert f"diffusers {version('diffusers')}" in text
    Path(file[1]).unlink()


@pytest.mark.parametrize("words", [["-h"], ["sweep", "-h"], ["rewards", "--help"]])
def test_help_has_a_short_form_everywhere(words: list[str]) -> None:
    assert "Usage" in here(*words).stdout


def test_the_version_is_that_of_the_package() -> None:
    assert here("--version").stdout.strip() == f"deradiff {version('deradiff')}"


def test_env_says_what_a_report_needs_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = here("env").stdout
    assert f"diffusers        {version('diffusers')}" in text
    assert "cpu" in text
    assert "hf_secret" not in text
    assert str(Path.home()) not in text


@pytest.mark.parametrize("module", [True, False])
def test_a_working_folder_plants_no_module(module: bool, tmp_path: Path) -> None:
    """Libraries try to import others that may be missing; a stranger's folder is no place to look for them."""
    (tmp_path / "planted.py").write_text("raise SystemExit('planted')")
    code = "import importlib.util as u, atexit; atexit.register(lambda: print('found', u.find_spec('planted')))"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(code)
    start = ["-m", "deradiff"] if module else ["-c", "from deradiff.cli import main; main()"]
    paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]  # an empty one is this folder
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *(["-P"] if not module else []), *start, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert "found None" in done.stdout

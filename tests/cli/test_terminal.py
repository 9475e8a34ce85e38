"""A command and its terminal, as real processes: streams that are closed, full or broken, ASCII, signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.shell import DERADIFF, here
from tests.cli.test_bad_journals import record
from tests.runs.painted import painted

from deradiff.cli.common import log_printable
from deradiff.cli.terminal import run_in_terminal
from deradiff.errors import ConfigError, DeradiffError, printable
from deradiff.runs.results import journalled_images

COMMAND = f"{sys.executable} -m deradiff"
STOPPED = "Stopped. What was made is kept: the same command goes on from there.\n"


def in_shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What bash makes of a command."""
    words = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (
            "--version > /dev/full",
            74,
            "Error: the output can't be written (No space left on device); send it elsewhere\n",
        ),
        ("--help > /dev/full", 74, "Error: the output can't be written (No space left on device); send it elsewhere\n"),
        ("--version | true", 141, ""),
        ("--help | head -c 1 > /dev/null", None, ""),
        ("--version >&-", 0, ""),
        ("--version >&- 2>&- <&-", 0, ""),
        ("export nowhere --out t.csv 2>&-", 2, ""),
        ("export nowhere --out t.csv 2> /dev/full", 2, ""),
        ("export nowhere --out t.csv > /dev/full", 2, "Error: nowhere is no run folder"),
    ],
)
def test_streams_that_are_closed_full_or_broken(command: str, code: int | None, error: str) -> None:
    done = in_shell(f"{COMMAND} {command}")
    assert done.returncode == code or (code is None and done.returncode in (0, 141))
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == bool(error)


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii", "TERM": "dumb"}])
def test_a_terminal_of_ascii_alone(tmp_path: Path, environment: dict[str, str]) -> None:
    store = painted(tmp_path / "run", prompts=["caf\u00e9 \u201cone\u201d", "two"], seeds=[0, 1], lams=[0, 1])
    record(store, "r\u00e9ward", list(journalled_images(store).values()))
    done = in_shell(f"{COMMAND} recommend {store.folder} --objective r\u00e9ward", **environment)
    assert done.returncode == 0, done.stderr
    assert "recommended lam" in done.stdout
    done = in_shell(f"{COMMAND} recommend {store.folder} --objective \u00e9", **environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    done = in_shell(f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && {COMMAND} env")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("Error: the working folder is gone")


SLOW_IMPORT = """
import signal, sys
sys.modules["deradiff.cli.align"] = None  # what the command line imports first
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "deradiff.cli.commands":
            signal.raise_signal({number})
sys.meta_path.insert(0, Finder())
from deradiff.cli import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_it_is_imported(number: int, code: int) -> None:
    words = [sys.executable, "-c", SLOW_IMPORT.format(number=int(number))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, STOPPED)


def stopped_as_another_error() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise ImportError("numpy says so") from error


def stopped_by_typer() -> None:
    raise SystemExit(130)


@pytest.mark.parametrize("command", [stopped_as_another_error, stopped_by_typer])
def test_a_stop_is_a_stop_whatever_libraries_make_of_it(
    command: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in_terminal(command) == 130
    assert capsys.readouterr().err == STOPPED


HOSTILE = "[/b]\x1b[2J\x9b31m\u202e\x07\r</script><script>alert(1)</script>{{ 7 * 7 }}"
HARMLESS = printable(HOSTILE)


def test_printable_text_has_no_control_characters() -> None:
    assert HARMLESS == "[/b]\\x1b[2J\\x9b31m\\u202e\\x07\\r</script><script>alert(1)</script>{{ 7 * 7 }}"
    assert printable("tab\tline\nna\u00efve \u4e2d \U0001f468\u200d\U0001f469") == (
        "tab\tline\nna\u00efve \u4e2d \U0001f468\u200d\U0001f469"
    )
    assert printable("half \ud800") == "half \\ud800"
    assert (
        printable("see http://user:pass@host:1/path?key=1#x or https://h/a") == "see http://host:1/path or https://h/a"
    )
    assert str(ConfigError(HOSTILE)) == HARMLESS
    assert len(str(DeradiffError("x" * 10**6))) < 3000


def test_nothing_that_people_wrote_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = painted(tmp_path / "run", prompts=[HOSTILE, "two"], seeds=[0, 1], lams=[0, 1])
    record(store, HOSTILE, list(journalled_images(store).values()))
    record(store, "half" + HOSTILE, list(journalled_images(store).values())[:2])
    words = [str(store.folder), "--objective", HOSTILE]
    printed = [here(*command, *words) for command in (["recommend"], ["report"])]
    printed.append(here("recommend", str(store.folder), "--objective", HOSTILE + "?", code=2))
    printed.append(here("recommend", str(store.folder), "--objective", "half" + HOSTILE, code=2))
    log_printable()
    for text in ("".join(part) for part in printed):
        assert not set(text) & set("\x1b\x9b\u202e\x07\r")
        assert "[/b]" in text
    page = (store.folder / "report.html").read_text("utf-8")
    assert "<script>alert(1)" not in page
    assert not set(page) & set("\x1b\u202e\x07")


@pytest.mark.parametrize(("typed", "expected"), [("deradiff swe", "sweep"), ("deradiff bake --format ko", "kohya")])
def test_a_shell_completes_commands_and_values(typed: str, expected: str) -> None:
    word = str(len(typed.split()) - 1)
    environment = {"COMP_WORDS": typed, "COMP_CWORD": word, "_DERADIFF_COMPLETE": "complete_bash"}
    done = subprocess.run([DERADIFF], capture_output=True, text=True, env=os.environ | environment, check=False)
    assert done.stdout.split() == [expected]

"""Running the command as a person does, in a process of its own or, where that takes too long, in this one."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from deradiff.cli import common
from deradiff.cli.commands import app
from deradiff.errors import DeradiffError

DERADIFF = str(Path(sys.executable).with_name("deradiff"))


def deradiff(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([DERADIFF, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def mistaken(*words: str, expected: str) -> None:
    """A mistake ends in one clear line and code 2."""
    error = here(*words, code=2).stderr
    assert expected in error
    assert "Error" in error


class Printed(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


def here(*words: str, code: int = 0) -> Printed:
    """In this process: importing torch in another one takes seconds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(common, "hush", lambda: None)  # it would last
        done = CliRunner().invoke(app, list(words))
    error = done.exception
    if isinstance(error, DeradiffError):  # main() does so
        assert code == 2, error
        return Printed(done.stdout, f"Error: {error}\n")
    if error is not None and not isinstance(error, SystemExit):
        raise error
    assert done.exit_code == code, done.output
    return Printed(done.stdout, done.stderr)


def as_typed(command: str) -> list[str]:
    """The words that a shell makes of a printed command, after its first; bash complains of what it can't read."""
    said = ["bash", "-euc", f"deradiff() {{ printf '%s\\0' \"$@\"; }}; {command}"]
    done = subprocess.run(said, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split("\0")[:-1]

"""Running the command as a person does."""

import subprocess
import sys
from pathlib import Path

DERADIFF = str(Path(sys.executable).with_name("deradiff"))


def deradiff(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([DERADIFF, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def mistaken(*words: str, expected: str) -> None:
    """A mistake ends in one clear line and code 2."""
    error = deradiff(*words, code=2).stderr
    assert expected in error
    assert "Error" in error

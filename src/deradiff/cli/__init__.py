"""The command line: thin commands, each in a file of its own; nothing is imported before it is needed."""

import os
import sys

from deradiff.cli.terminal import STOPPED, run_in_terminal


def main() -> None:
    """Run the command line; every error is one line on stderr, with the exit code of `run_in_terminal`."""
    code = run_in_terminal(_run)
    if code in STOPPED.values():
        os._exit(code)  # Python exits by another code where a library's import was stopped
    sys.exit(code)


def _run() -> None:
    from deradiff.cli.commands import run  # a third of a second, in which Ctrl-C is as good as later

    run(sys.argv[1:])

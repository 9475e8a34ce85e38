"""A command and its terminal: signals, streams that are missing, full, broken or take few characters, exit codes."""

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from deradiff.errors import DeradiffError, QuarantineError, printable

_MISTAKE, _QUARANTINE, _BUG, _OUTPUT = 2, 3, 70, 74  # a bug and failing output as in sysexits.h
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}
_BROKEN_PIPE = 141


def run_in_terminal(command: Callable[[], None]) -> int:
    """Run a command; returns its exit code.

    0, or what the command exits with; 2 an error of ours; 3 some images are quarantined; 70 an error that nobody
    foresaw; 74 output that can't be written; 130 Ctrl-C and 143 SIGTERM; 141 a reader that has gone, silently.
    Everything else is one line on stderr.
    """
    with _standard_streams() as output, _stopping() as signals:
        try:
            code = _exit_code(command, signals)
            output.flush()
        except BaseException as error:  # noqa: BLE001  (the last net)
            code = _report(error, signals, output)
        if isinstance(output.error, BrokenPipeError):
            return code if code in (_MISTAKE, _QUARANTINE, _BUG) or signals else _BROKEN_PIPE
    return code


def _exit_code(command: Callable[[], None], signals: list[int]) -> int:
    try:
        command()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if signals or code == STOPPED[signal.SIGINT]:
            raise KeyboardInterrupt from stop
        return code
    return 0


def _report(error: BaseException, signals: list[int], output: "_Stream") -> int:
    """Say what went wrong in a line; returns the exit code."""
    if signals or isinstance(error, KeyboardInterrupt):  # libraries make other errors of a stop in their imports
        _say("Stopped. What was made is kept: the same command goes on from there.")
        return STOPPED[signal.Signals(signals[0])] if signals else STOPPED[signal.SIGINT]
    if isinstance(error, DeradiffError):
        _say(f"Error: {error}")
        return _QUARANTINE if isinstance(error, QuarantineError) else _MISTAKE
    if output.error is not None:
        if not isinstance(output.error, BrokenPipeError):
            _say(f"Error: the output can't be written ({output.error.strerror}); send it elsewhere")
        return _OUTPUT
    _say(_describe_bug(error))
    return _BUG


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # the exit code still tells
        sys.stderr.write(printable(text) + "\n")


class _Stream(io.TextIOWrapper):
    """A standard stream that takes every character, and remembers why it couldn't be written.

    Attributes:
        error: the last one.
        is_optional: whether an error is of no consequence.
    """

    error: OSError | None = None
    is_optional = False

    def write(self, text: str) -> int:
        """Write a text; raises OSError unless optional."""
        return self._tried(lambda: super(_Stream, self).write(text)) or 0

    def flush(self) -> None:
        """Write what is buffered; raises OSError unless optional."""
        self._tried(super().flush)

    def _tried(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            self.error = error
            if not self.is_optional:
                raise
            return None


@contextmanager
def _standard_streams() -> Generator[_Stream]:
    """Standard output and error, which failing to write stops nothing; yields the output.

    Where they were closed they lead nowhere, and no file of ours takes their place.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    previous = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_stream(stream, number) for number, stream in enumerate(previous, start=1))
    sys.stderr.is_optional = True
    streams = sys.stdout, sys.stderr
    try:
        yield streams[0]
    finally:
        for stream in streams:
            _leave(stream)
        sys.stdout, sys.stderr = previous


def _stream(stream: TextIO | None, number: int) -> _Stream:
    if stream is None:
        return _Stream(open(number, "wb", closefd=False), errors="backslashreplace")
    return _Stream(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=bool(stream.line_buffering),
    )


def _leave(stream: _Stream) -> None:
    """Flush a stream and leave what is below it open; what can't be written is lost, without another complaint."""
    stream.is_optional = True
    stream.flush()
    if stream.error is not None:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    stream.detach()


@contextmanager
def _stopping() -> Generator[list[int]]:
    """Inside the block Ctrl-C and SIGTERM raise KeyboardInterrupt; yields the signals that came."""
    signals: list[int] = []

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    previous = {}
    for number in STOPPED:
        before = signal.getsignal(number)
        if before is not signal.SIG_IGN:  # as in the background of a script
            with suppress(ValueError):  # not the main thread, which alone receives signals
                previous[number] = signal.signal(number, stop)
    try:
        yield signals
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def _describe_bug(error: BaseException) -> str:
    """What to say of an error that nobody foresaw, whose traceback goes into a file."""
    from importlib.metadata import PackageNotFoundError, version

    def version_of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    packages = ("deradiff", "torch", "diffusers", "transformers", "peft")
    versions = ", ".join(f"{name} {version_of(name)}" for name in packages)
    first = (str(error).splitlines() or [""])[0][:200]
    return (
        f"Error: this is a bug in deradiff ({type(error).__name__}: {first}); please report it with "
        f"{_write_traceback(error)} and these versions: {versions}, Python {sys.version.split()[0]}"
    )


def _write_traceback(error: BaseException) -> str:
    """Write a traceback into a file; returns its name, or where it was raised if no file can be written."""
    from tempfile import NamedTemporaryFile

    try:
        with NamedTemporaryFile(
            "w", prefix="deradiff-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        return file.name
    except OSError:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"the place it was raised at, {frame.filename}, line {frame.lineno},"

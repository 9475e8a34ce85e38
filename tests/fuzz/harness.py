"""One case, and many: the law is that a reader gives a value or a DeradiffError, in bounded time."""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, settings
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import Target

from deradiff.errors import DeradiffError

CORPUS = Path(__file__).parent / "corpus"  # a folder a target, a file a situation that was found
_LONGEST = 3000  # characters of an error
_SECONDS = 30  # far more than any case takes, on a busy machine too


class TooSlowError(BaseException):
    """A case took too long."""


def check(target: Target, content: bytes, folder: Path) -> None:
    """Read some bytes; anything but a value or a DeradiffError is raised."""
    with _bounded_time(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(content, folder)
        except DeradiffError as error:
            if not 0 < len(str(error)) < _LONGEST:
                raise AssertionError(f"an error of {len(str(error))} characters is no sentence") from error


def explore(target: Target, cases: int, *, derandomized: bool) -> int:
    """Check mutations of a target's seeds; returns how many. What fails is made minimal, and raised."""
    tried = 0
    with TemporaryDirectory() as folder, _quiet():

        @settings(
            max_examples=cases,
            derandomize=derandomized,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
            report_multiple_bugs=False,
        )
        @given(mutated(target.seeds, target.is_json))
        def explored(content: bytes) -> None:
            nonlocal tried
            tried += 1
            check(target, content, Path(folder))

        explored()
    return tried


def corpus(name: str) -> list[bytes]:
    """The situations found of a target so far."""
    folder = CORPUS / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is fetched, and nothing is logged."""
    offline = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        if offline is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = offline


@contextmanager
def _bounded_time() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooSlowError(f"longer than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

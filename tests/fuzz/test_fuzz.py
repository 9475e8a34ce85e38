"""The law on a few derandomised mutations of each target, and on what was found; `make fuzz` tries many more."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.harness import CORPUS, check, corpus, explore
from tests.fuzz.targets import Target, targets

CASES = 8  # of each target


@pytest.fixture(scope="module")
def by_name() -> Iterator[dict[str, Target]]:
    with targets() as found:
        yield found


def test_valid_bytes_are_read(by_name: dict[str, Target], tmp_path: Path) -> None:
    for target in by_name.values():
        for content in target.seeds:
            target.read(content, tmp_path)


def test_what_was_found_stays_mended(by_name: dict[str, Target], tmp_path: Path) -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(by_name)
    for name, target in by_name.items():
        for content in corpus(name):
            check(target, content, tmp_path)


def test_mutations_are_read_or_told(by_name: dict[str, Target]) -> None:
    for target in by_name.values():
        explore(target, CASES, derandomized=True)

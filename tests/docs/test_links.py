"""What the documentation points to is there."""

import re
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT, code_spans, links

RELIABILITY = ROOT / "docs/reliability.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_the_text_exist(page: Path) -> None:
    named = [re.match(r"(?:tests|benchmarks|examples|docs|src)/[\w/.-]*\w", span) for span in code_spans(page)]
    missing = [match[0] for match in named if match is not None and not (ROOT / match[0]).exists()]
    assert missing == []


def test_every_promise_names_the_tests_that_hold_it() -> None:
    rows = [line for line in RELIABILITY.read_text().splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promise")]
    assert len(promises) > 15
    for row in promises:
        tests = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", row)
        assert tests, row
        for test in tests:
            assert "def test_" in (ROOT / test).read_text(), row

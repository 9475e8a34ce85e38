"""Model cards: valid metadata, nothing of the machine, and no README of somebody else's is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard as HubCard
from hypothesis import given, settings
from hypothesis import strategies as st

from deradiff.hub import ModelCard, write_model_card

CARD = ModelCard(
    title="An anchor",
    summary="Made of a test.",
    reference="stabilityai/stable-diffusion-xl-base-1.0 (revision main)",
    facts={"beta": "0.1"},
    usage="import deradiff",
    is_adapter=True,
)


def read_metadata(text: str) -> Any:
    """As the hub does."""
    return HubCard(text).data


def test_the_hub_reads_base_tags_and_library() -> None:
    data = read_metadata(CARD.text())
    assert data.base_model == "stabilityai/stable-diffusion-xl-base-1.0"
    assert data.library_name == "diffusers"
    assert data.tags == ["diffusers", "lora", "text-to-image", "deradiff"]
    assert "license" not in data.to_dict()  # the base's doesn't say what the user's is
    assert "| licence of the base | openrail++ |" in CARD.text()
    assert "| beta | 0.1 |" in CARD.text()


def test_a_base_of_this_machine_is_named_without_its_folders_and_its_licence_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = replace(CARD, reference=str(tmp_path / "model")).text()
    assert "| base | model |" in text
    assert "| licence of the base | unknown |" in text
    assert str(tmp_path) not in text
    assert read_metadata(text).base_model is None


@settings(max_examples=30, deadline=None)
@given(st.text(), st.text())
def test_texts_of_users_stay_in_their_cell(name: str, value: str) -> None:
    text = replace(CARD, title=value, facts={name: value}, usage=value).text()
    assert read_metadata(text).base_model == read_metadata(CARD.text()).base_model
    rows = [line for line in text.partition("```python")[0].splitlines() if line.startswith("|")]
    assert len(rows) == 5  # header, rule, base, licence, the fact
    assert "<" not in rows[-1]


def test_its_own_card_is_replaced_and_an_equal_one_is_not_written_again(tmp_path: Path) -> None:
    assert write_model_card(tmp_path, CARD)
    before = (tmp_path / "README.md").stat()
    assert write_model_card(tmp_path, CARD)
    assert (tmp_path / "README.md").stat().st_ino == before.st_ino
    other = replace(CARD, title="Another")
    assert write_model_card(tmp_path, other)
    assert (tmp_path / "README.md").read_text() == other.text()


@pytest.mark.parametrize("content", [b"# mine\n", b"", b"\xff\xfe", b"edited"])
def test_a_readme_of_somebody_else_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    readme = tmp_path / "README.md"
    if content == b"edited":
        content = CARD.text().replace("Made of a test.", "I know better.").encode()
    readme.write_bytes(content)
    assert not write_model_card(tmp_path, CARD)
    assert readme.read_bytes() == content
    assert "isn't deradiff's" in caplog.text


def test_links_and_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.md").write_text(CARD.text())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "README.md").symlink_to(tmp_path / "elsewhere.md")
    (tmp_path / "two" / "README.md").mkdir(parents=True)
    for name in ("one", "two"):
        assert not write_model_card(tmp_path / name, replace(CARD, title="Another"))
    assert (tmp_path / "elsewhere.md").read_text() == CARD.text()

from pathlib import Path
from typing import Any

import pytest

from deradiff.errors import PlanError
from deradiff.sweep import Cell, Plan
from deradiff.sweep.given import lams_for_betas, parse_lams, read_prompts

GIVEN: dict[str, Any] = {"model": "m", "anchor": "a", "prompts": ["one", "two"], "seeds": [0, 1], "lams": [1.0, 0.0]}


def plan(**changes: Any) -> Plan:
    return Plan.of(**{**GIVEN, **changes})


def test_batches_hold_every_cell_once_and_one_lam_each() -> None:
    own = plan(batch_size=3, lams=[0, 0.5, 1])
    batches = list(own.batches())
    cells = [cell for batch in batches for cell in batch]
    assert sorted(cells) == sorted(own.cells())
    assert len(set(cells)) == len(cells) == 12
    assert all(len({cell.lam for cell in batch}) == 1 and len(batch) <= 3 for batch in batches)


def test_image_names_tell_apart_what_changes_the_image_and_nothing_else() -> None:
    here = plan().image_name(Cell(0, 0, 0))
    assert here == plan(prompts=["one"], lams=[0], seeds=[0], batch_size=1, anchor_beta=2).image_name(Cell(0, 0, 0))
    others = [plan().image_name(cell) for cell in plan().cells()]
    others += [plan(**change).image_name(Cell(0, 0, 0)) for change in ({"steps": 3}, {"guidance": 2}, {"anchor": "b"})]
    assert len({here, *others}) == len(others)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a", " "]}, "empty"),
        ({"prompts": ["a", "a"]}, "twice"),
        ({"lams": [float("nan")]}, "finite"),
        ({"lams": [1, 1.0]}, "twice"),
        ({"seeds": [0, 0]}, "twice"),
        ({"steps": 0}, "steps"),
        ({"guidence": 7}, "guidence"),
        ({"anchor_beta": -1}, "anchor_beta"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(PlanError, match=word):
        plan(**change)


def test_lams_and_betas_from_text() -> None:
    assert parse_lams("0:2:5") == [0, 0.5, 1, 1.5, 2]
    assert parse_lams("1, 0, 0.3") == [0, 0.3, 1]
    assert parse_lams("0:1:3,4") == [0, 0.5, 1, 4]
    assert lams_for_betas("1000,4000,500", 2000) == [0, 0.5, 2, 4]


@pytest.mark.parametrize("text", ["", "a", "0:1", "0:1:x", "0,,1"])
def test_unreadable_lams_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="start:stop:count"):
        parse_lams(text)


@pytest.mark.parametrize(("text", "beta"), [("500", None), ("x", 2.0), ("0", 2.0), ("-1", 2.0)])
def test_unusable_betas_are_refused(text: str, beta: float | None) -> None:
    with pytest.raises(PlanError, match="beta"):
        lams_for_betas(text, beta)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", "a red one\n\n a blue one \na red one\n"),
        ("p.csv", "id,prompt\n1,a red one\n2,a blue one\n"),
        ("p.jsonl", '{"prompt": "a red one"}\n{"prompt": "a blue one"}\n'),
    ],
)
def test_prompts_from_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_prompts(tmp_path / name) == ["a red one", "a blue one"]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("p.txt", "\n \n", "no prompt"),
        ("p.csv", "text\nx\n", "column named prompt"),
        ("p.jsonl", '{"prompt": "x"}\n{nonsense\n', "column named prompt"),
        ("p.jsonl", '"x"\n', "column named prompt"),
        ("p.docx", "x", "are read from"),
    ],
)
def test_prompt_files_that_cannot_be_used(tmp_path: Path, name: str, content: str, word: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PlanError, match=word):
        read_prompts(tmp_path / name)
    with pytest.raises(PlanError, match="no prompt file"):
        read_prompts(tmp_path / "missing.txt")

"""Lines of a run's journals that are torn, reordered, repeated, damaged or foreign: told, or of no consequence."""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runs.painted import JOURNAL, REQUESTS, SCORES, cells_of, lines_of, paint, painted, write_lines
from tests.runs.small_runs import REWARD, assert_same, contents, finished, quiet

from deradiff.errors import RunFolderError
from deradiff.runs.missing import missing_of
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import load_results
from deradiff.runs.scoring import score
from deradiff.runs.store import Store


def test_what_a_crash_tore_is_made_again(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe)
    run.score(REWARD, progress=quiet)
    whole = contents(tmp_path)
    for name, kept in ((JOURNAL, 2), (SCORES, 1), (REQUESTS, 0)):
        lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(lines[:kept]) + lines[kept][:10])  # killed while writing the next line
    finished(tmp_path, recipe).score(REWARD, progress=quiet)
    assert contents(tmp_path) == whole


def test_a_run_can_be_read_while_its_last_lines_are_torn(store: Store) -> None:
    before = load_results(store)
    for name in (JOURNAL, SCORES, REQUESTS):
        with (store.folder / name).open("a") as file:
            file.write('{"kind": "sco')
    torn = contents(store.folder)
    assert_same(load_results(Store.open(store.folder)), before)
    assert contents(store.folder) == torn


@pytest.mark.parametrize("name", [JOURNAL, SCORES, REQUESTS])
def test_reordered_and_repeated_lines_change_nothing(store: Store, name: str) -> None:
    before = load_results(store)
    lines = lines_of(store, name)
    write_lines(store, name, [*lines[::-1], *lines, lines[0]])
    assert_same(load_results(Store.open(store.folder)), before)
    assert list(missing_of(store)(cells_of(store))) == []


def test_lines_may_stand_in_any_journal(store: Store) -> None:
    before = load_results(store)
    lines = lines_of(store, JOURNAL)
    write_lines(store, "cells-2-of-3.jsonl", lines[:5])
    write_lines(store, "cells-1-of-7.jsonl", lines[3:])
    (store.folder / JOURNAL).unlink()
    assert_same(load_results(Store.open(store.folder)), before)


@pytest.mark.parametrize("shard", [(0, 1), (0, 2)])
def test_an_image_that_came_out_otherwise_later_counts_as_it_is_now(store: Store, shard: tuple[int, int]) -> None:
    """Deleted, and sampled again under other versions, which rounded otherwise: whichever journal tells it."""
    again = cells_of(store)[:3]
    paint(store, again, version=1, shard=shard)
    assert load_results(store).unscored == {REWARD: 3}
    score(store, REWARD)
    table = load_results(store)
    for place in np.ndindex(table.shape):
        shown = np.asarray(Image.open(table.image(*place))) / 255
        assert table.scores[REWARD][place] == pytest.approx(shown.mean(), abs=1e-6)


def damaged(line: dict[str, Any], **changes: Any) -> str:
    return json.dumps({**line, **changes})


CELLS_LINE = json.loads(
    '{"kind":"cells","keys":["00000000000000000000000000000001"],"prompts":["one"],"cells":[[0,0,null,0.0]],'
    '"sha256":["ab"],"statistics":{"q":[1.0]},"info":{"nfe":1,"nfe_published":1}}'
)
SCORES_LINE = json.loads(
    '{"kind":"scores","reward":"r","keys":["00000000000000000000000000000001"],"sha256":["ab"],"scores":[1.0]}'
)
REQUEST_LINE = json.loads('{"prompts":["one"],"seeds":[0],"lams":[0.0],"guidances":[null]}')
DAMAGED = [
    (JOURNAL, '{"kind": "ce'),
    (JOURNAL, "[]"),
    (JOURNAL, "{}"),
    (JOURNAL, "[" * 100_000),
    (JOURNAL, "1" * 5000),
    (JOURNAL, damaged(CELLS_LINE, keys=[])),
    (JOURNAL, damaged(CELLS_LINE, keys=["no key"])),
    (JOURNAL, damaged(CELLS_LINE, keys=["no hexadecimal digits, but as many"[:32]])),
    (JOURNAL, damaged(CELLS_LINE, keys=[3])),
    (JOURNAL, damaged(CELLS_LINE, keys="0" * 32)),
    (JOURNAL, damaged(CELLS_LINE, keys=["0" * 32] * 2)),
    (JOURNAL, damaged(CELLS_LINE, sha256=[])),
    (JOURNAL, damaged(CELLS_LINE, cells=[[1, 0, None, 0]])),
    (JOURNAL, damaged(CELLS_LINE, cells=[[-1, 0, None, 0]])),
    (JOURNAL, damaged(CELLS_LINE, cells=[[0, 0, None, "much"]])),
    (JOURNAL, damaged(CELLS_LINE, statistics={"q": [1, 2]})),
    (JOURNAL, damaged(CELLS_LINE, info={"nfe": -1, "nfe_published": 1})),
    (JOURNAL, damaged(CELLS_LINE, info={})),
    (JOURNAL, damaged(CELLS_LINE, other=1)),
    (SCORES, '{"kind": "sc'),
    (SCORES, '"scores"'),
    (SCORES, damaged(SCORES_LINE, scores=[1, 2])),
    (SCORES, damaged(SCORES_LINE, scores=["high"])),
    (SCORES, damaged(SCORES_LINE, groups=["a", "b"])),
    (SCORES, damaged(SCORES_LINE, reward=None)),
    (SCORES, damaged(CELLS_LINE)),
    (REQUESTS, "{"),
    (REQUESTS, "[]"),
    (REQUESTS, "{}"),
    (REQUESTS, damaged(REQUEST_LINE, lams=[])),
    (REQUESTS, damaged(REQUEST_LINE, cls=1)),
    (REQUESTS, damaged(REQUEST_LINE, prompts=["one", "one"])),
]


@pytest.mark.parametrize(("name", "line"), DAMAGED, ids=lambda own: own[:40])
def test_a_damaged_line_is_reported_in_a_sentence_with_its_file_and_line(store: Store, name: str, line: str) -> None:
    before, lines = load_results(store), lines_of(store, name)
    write_lines(store, name, [*lines[:1], line, *lines[1:]])
    with pytest.raises(RunFolderError, match=rf"{name}, line 2") as told:
        load_results(Store.open(store.folder))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 600
    write_lines(store, name, lines)
    assert_same(load_results(Store.open(store.folder)), before)


@pytest.mark.parametrize("line", [line for name, line in DAMAGED[:10] if name == JOURNAL], ids=lambda own: own[:40])
def test_nothing_is_sampled_beside_a_line_without_keys(store: Store, line: str) -> None:
    lines = lines_of(store, JOURNAL)
    write_lines(store, JOURNAL, [*lines, line])
    with suppress(RunFolderError):  # what is known of it may be enough to go on
        assert list(missing_of(store)(cells_of_request(store))) == []
    with pytest.raises(RunFolderError, match=rf"{JOURNAL}, line {len(lines) + 1}"):
        load_results(store)


def cells_of_request(store: Store) -> list[Any]:
    return [cell for request in store.requests() for cell in request.cells()]


@pytest.mark.parametrize("name", [JOURNAL, SCORES, REQUESTS])
def test_bytes_that_are_no_text_are_reported_with_their_place(store: Store, name: str) -> None:
    with (store.folder / name).open("ab") as file:
        file.write(b'{"kind": "caf\xe9"}\n')
    with pytest.raises(RunFolderError, match=rf"{name}, line {len((store.folder / name).read_bytes().splitlines())}"):
        load_results(Store.open(store.folder))


def test_a_line_of_another_recipe_is_refused(tmp_path: Path, store: Store) -> None:
    other = painted(tmp_path / "other", recipe={"steps": 3})
    lines = lines_of(store, JOURNAL)
    write_lines(store, JOURNAL, [*lines, *lines_of(other, JOURNAL)])
    with pytest.raises(RunFolderError, match=rf"{JOURNAL}, line {len(lines) + 1}, is of a run of another recipe"):
        load_results(Store.open(store.folder))


def test_scores_of_another_run_count_for_nothing(tmp_path: Path, store: Store) -> None:
    other = painted(tmp_path / "other", recipe={"steps": 3})
    score(other, REWARD)
    before = load_results(store)
    write_lines(store, SCORES, lines_of(other, SCORES) + lines_of(store, SCORES))
    assert_same(load_results(Store.open(store.folder)), before)


@pytest.mark.parametrize("value", ["Infinity", "-Infinity"])
def test_scores_that_are_infinite_are_reported(store: Store, value: str) -> None:
    line = json.loads(lines_of(store, SCORES)[0])
    line["scores"][0] = float(value.replace("inity", ""))
    write_lines(store, SCORES, [*lines_of(store, SCORES), json.dumps(line)])
    with pytest.raises(RunFolderError, match=r"1 of 36 scores in .*rewards\.jsonl are infinite"):
        load_results(store)


def test_a_line_of_scores_says_which_file_was_scored(store: Store) -> None:
    told = [ScoreRecord.model_validate_json(line) for line in lines_of(store, SCORES)]
    scored = {key: digest for record in told for key, digest in zip(record.keys, record.sha256, strict=True)}
    files = {store.keys(cell): store.image(cell) for cell in cells_of(store)}
    assert scored == {key: sha256(file.read_bytes()).hexdigest() for key, file in files.items()}

"""Votes in a run folder: whole lines, by any number of raters at once, merged and exported with the run."""

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.processes import start
from tests.runs.painted import lines_of, paint, painted, write_lines
from tests.runs.small_runs import contents

from deradiff.errors import ResultsError, RewardError, RunFolderError
from deradiff.results import Results
from deradiff.rewards import load_reward
from deradiff.runs.cells import Cell
from deradiff.runs.export import export_votes
from deradiff.runs.merge import merge
from deradiff.runs.run import Run
from deradiff.runs.store import Store
from deradiff.runs.votes import add_votes, read_votes
from deradiff.votes import Vote

VOTES = "votes.jsonl"


def vote(**changes: Any) -> Vote:
    given = {"prompt": "one", "seed": 0, "left": 0, "right": 1, "outcome": "left", "rater": "Ada"}
    return Vote(**{**given, **changes})


def test_votes_come_back_as_they_were_given(store: Store) -> None:
    run, votes = Run(store.folder), [vote(), vote(left=1, right=-1, outcome="tie", rater="=Zoë\n"), vote(seed=3)]
    assert run.votes() == []
    for one in votes:
        run.add_vote(one)
    assert run.votes() == list(run.results().votes) == votes
    assert len(lines_of(store, VOTES)) == 3


def test_votes_belong_to_their_guidance(tmp_path: Path) -> None:
    store = painted(tmp_path, guidances=[1.0, 4.0])
    add_votes(store, [vote(guidance=1.0), vote(guidance=4.0), vote(guidance=4.0, seed=1)])
    assert len(Run(tmp_path).results(4.0).votes) == 2
    assert len(Run(tmp_path).votes()) == 3


@pytest.mark.parametrize("changes", [{"prompt": "four"}, {"seed": 9}, {"left": 0.5}, {"guidance": 7.5}])
def test_votes_on_images_that_the_run_lacks_are_refused(store: Store, changes: dict[str, Any]) -> None:
    with pytest.raises(RunFolderError, match="has no image of"):
        Run(store.folder).add_vote(vote(**changes))
    assert read_votes(store) == []


def cast(folder: Path, rater: str) -> None:
    run = Run(folder)
    for seed in (0, 1, 2, 3) * 5:
        run.add_vote(vote(seed=seed, rater=rater))


def test_raters_at_once_lose_nothing(store: Store) -> None:
    processes = [start(cast, store.folder, f"rater {number}") for number in range(3)]
    for process in processes:
        process.join()
    votes = read_votes(store)
    assert len(votes) == 60
    assert {one.rater for one in votes} == {"rater 0", "rater 1", "rater 2"}


def test_a_torn_line_is_cut_and_a_damaged_one_is_named(store: Store) -> None:
    add_votes(store, [vote(), vote(seed=1)])
    with (store.folder / VOTES).open("a") as file:
        file.write('{"prompt": "on')
    assert len(read_votes(store)) == 2
    add_votes(store, [vote(seed=2)])
    assert [one.seed for one in read_votes(store)] == [0, 1, 2]
    lines = lines_of(store, VOTES)
    write_lines(store, VOTES, [lines[0], lines[1].replace("left", "lift"), lines[2]])
    with pytest.raises(RunFolderError, match=r"votes\.jsonl, line 2, is damaged .*; delete that line"):
        read_votes(store)


def test_votes_are_not_followed_out_of_the_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (store.folder / VOTES).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match="elsewhere"):
        read_votes(store)
    with pytest.raises(RunFolderError, match="elsewhere"):
        add_votes(store, [vote()])
    assert (tmp_path / "elsewhere").read_text() == ""


def test_merging_takes_the_union_once_but_no_votes_on_images_that_were_not_taken(tmp_path: Path) -> None:
    one, other = (painted(tmp_path / name, prompts=["one", "two"]) for name in ("one", "other"))
    shared = vote(rater="both")
    add_votes(one, [vote(), shared])
    add_votes(other, [shared, vote(rater="Bo"), vote(prompt="two"), vote(prompt="two", left=-1)])
    paint(other, [Cell("two", 0, None, 0.0)], version=1)
    merge([one.folder, other.folder], tmp_path / "all")
    votes = read_votes(Store.open(tmp_path / "all"))
    assert [(one.prompt, one.rater, one.left) for one in votes] == [
        ("one", "Ada", 0),
        ("one", "both", 0),
        ("one", "Bo", 0),
        ("two", "Ada", -1),
    ]
    before = contents(tmp_path / "all")
    merge([other.folder, one.folder], tmp_path / "all")
    assert contents(tmp_path / "all") == before


def test_votes_are_exported_a_row_each(store: Store, tmp_path: Path) -> None:
    add_votes(store, [vote(rater="=1+1"), vote(left=1, right=-1, outcome="right"), vote(outcome="tie")])
    assert export_votes(store, tmp_path / "votes.parquet") == 3
    table = pq.read_table(tmp_path / "votes.parquet").to_pylist()
    assert [row["better"] for row in table] == [0, -1, None]
    assert [(row["rater"], row["outcome"]) for row in table] == [("=1+1", "left"), ("Ada", "right"), ("Ada", "tie")]
    assert all((store.folder / row[f"image_{side}"]).is_file() for row in table for side in ("left", "right"))
    assert export_votes(store, tmp_path / "votes.csv") == 3
    with (tmp_path / "votes.csv").open(newline="") as file:
        assert next(iter(csv.DictReader(file)))["rater"] == "'=1+1"  # no formula
    with pytest.raises(RunFolderError, match=r"expected a file that ends in \.parquet or \.csv"):
        export_votes(store, tmp_path / "votes.txt")


def test_no_reward_may_be_called_votes() -> None:
    with pytest.raises(RewardError, match="votes are people's"):
        load_reward("votes")
    with pytest.raises(ResultsError, match="no reward may be called 'votes'"):
        Results(prompts=["a"], seeds=[0], lams=[0, 1], scores={"votes": [[[0, 1]]]})  # pyright: ignore[reportArgumentType]

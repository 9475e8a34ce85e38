"""What a recommendation advises to do next: a shell reads it, the command line takes it, and it costs what it says."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from tests.cli.shell import as_typed, here
from tests.runs.painted import painted
from tests.runs.small_runs import images, stamps

from deradiff.analysis.commands import format_guard
from deradiff.analysis.criteria import Guard
from deradiff.cli.parsing import parse_guards
from deradiff.runs.cells import Cell
from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import journalled_images, load_results
from deradiff.runs.store import Store

PROMPTS = [f"prompt {number}" for number in range(12)]
HOSTILE = "http://host:80/score;model=a&b=$HOME"
LINE = re.compile(r"^(?P<what>.+): (?P<command>deradiff sweep .*)$", re.MULTILINE)
COST = re.compile(r"  # (?P<images>[\d,]+) images, about \S+ \S+ here$")


def scored(store: Store, **values: Callable[[Cell], float]) -> Store:
    """Scores of all its images, of rewards whose mean is known."""
    found = journalled_images(store)
    keys, digests = (tuple(getattr(image, name) for image in found.values()) for name in ("key", "sha256"))
    rng = np.random.default_rng(0)
    with store.scoring() as writer:
        for reward, value in values.items():
            told = tuple(value(cell) + 0.05 * rng.normal() for cell in found)
            writer.append(ScoreRecord(reward=reward, keys=keys, sha256=digests, scores=told))
    return store


def rising(cell: Cell) -> float:
    return 5 + cell.lam


def unclear(cell: Cell) -> float:
    """It may fall, by more with some prompts than with others: more prompts would tell."""
    return 5 - 0.1 * cell.lam * (1 + int(cell.prompt.rsplit(" ", 1)[1]) % 3)


def advised(printed: str) -> dict[str, str]:
    """The commands, by what each is for."""
    return {found["what"]: found["command"] for found in LINE.finditer(printed)}


def listed(words: Iterable[str]) -> int:
    """How many images a command asks for."""
    return len(here(*words, "--list").stdout.splitlines())


def promised(command: str) -> int:
    found = COST.search(command)
    assert found is not None, command
    return int(found["images"].replace(",", ""))


def follow(command: str) -> list[str]:
    """What the shell makes of a command, which asks for as many images as it says, all of them new."""
    words = as_typed(command)
    assert listed(words) == promised(command)
    told = here(*words[: words.index("--rewards")], "--dry-run").stdout
    assert told.startswith(f"{promised(command):,} images to sample: "), told  # none is there
    return words


def test_more_lams_are_asked_for_where_the_answer_lies(tmp_path: Path) -> None:
    store = scored(painted(tmp_path / "my run", prompts=PROMPTS, seeds=[0, 1], lams=[0, 0.5, 1]), proxy=rising)
    before = stamps(store.folder)
    printed = here("recommend", str(store.folder), "--objective", "proxy").stdout
    (command,) = advised(printed).values()
    words = follow(command)
    assert words[:3] == ["sweep", "--out", str(store.folder)]
    assert words[words.index("--lams") + 1] == "1.5,2"  # the best is the last one
    assert words[words.index("--rewards") + 1 :] == ["proxy", "--objective", "proxy"]
    assert promised(command) == 12 * 2 * 2
    assert stamps(store.folder) == before


def test_more_prompts_are_asked_for_as_many_as_would_settle_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = scored(painted(tmp_path / "run", prompts=PROMPTS, seeds=[0, 1], lams=[0, 0.5]), proxy=rising, gold=unclear)
    asked = ("--objective", "proxy", "--guard", "gold:-0.13")
    printed = here("recommend", str(store.folder), *asked).stdout
    settled = re.search(r"About (\d+) more prompts like these", printed)
    assert settled is not None, printed
    command = advised(printed)[f"{settled[1]} more prompts, one a line of more.txt"]
    (tmp_path / "more.txt").write_text("".join(f"further {number}\n" for number in range(int(settled[1]))))
    words = follow(command)
    assert words[-6:] == ["--rewards", "proxy,gold", "--objective", "proxy", "--guard", "gold:-0.13"]


def test_the_question_is_that_of_the_answer_whatever_rewards_are_called(tmp_path: Path) -> None:
    values = {HOSTILE: rising, "mine:b": lambda cell: 7.0, "other's": lambda cell: -cell.lam}
    store = scored(painted(tmp_path / "it's", prompts=PROMPTS, seeds=[0], lams=[0, 0.5, 1]), **values)
    asked = ["--objective", HOSTILE, "--guard", "mine:b:±10%,other's:-9"]
    printed = here("recommend", str(store.folder), *asked).stdout
    words = as_typed(next(iter(advised(printed).values())))
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert given["--out"] == str(store.folder)
    assert set(given["--rewards"].split(",")) == {HOSTILE, "mine:b", "other's"}
    assert [given["--objective"], given["--guard"]] == asked[1::2]


def test_several_guidances_are_all_sampled_and_counted(tmp_path: Path) -> None:
    """A command without --guidance is for all that the run has."""
    store = painted(tmp_path / "run", prompts=PROMPTS, seeds=[0], lams=[0, 0.5, 1], guidances=[3.0, 7.0])
    painted(store.folder, prompts=PROMPTS[:2], seeds=[1], lams=[0, 1], guidances=[7.0])  # more of one of them
    scored(store, proxy=rising)
    printed = here("recommend", str(store.folder), "--objective", "proxy").stdout
    assert printed.count("recommended lam") == 2
    for command in advised(printed).values():
        follow(command)


def test_a_run_that_grew_unevenly_is_advised_what_it_lacks(tmp_path: Path) -> None:
    store = painted(tmp_path / "run", prompts=PROMPTS, seeds=[0], lams=[0, 0.5])
    painted(tmp_path / "run", prompts=PROMPTS[:4], seeds=[1, 2], lams=[0, 0.5, 1])
    scored(store, proxy=rising)
    printed = here("recommend", str(store.folder), "--objective", "proxy").stdout
    follow(advised(printed)["More lams"])


def test_an_advised_command_is_really_run_and_answers_the_same_question(tmp_path: Path) -> None:
    """Also where metrics of groups were scored, of which the new lams alone are none."""
    run = tmp_path / "run"
    words = ["sweep", "--steps", "1", "--seeds", "2", "--lams", "0,1", "--out", str(run)]
    for prompt in ("a large blue circle", "a small red square", "a purple triangle", "a black circle"):
        words += ["--prompt", prompt]
    here(*words, "--anchor", "embedded:warmth-beta0.025-seed0")
    here("score", str(run), "--rewards", "warmth,contrast,reference_distance,diversity")
    printed = here("recommend", str(run), "--objective", "warmth", "--guard", "contrast:±95%", "--risk", "0.5").stdout
    before = images(run)
    command = advised(printed)["More lams"]
    again = here(*as_typed(command)).stdout
    assert again.startswith(f"{promised(command)} images to sample")
    assert before.items() < images(run).items()
    assert len(images(run)) == len(before) + promised(command)
    assert again.splitlines()[-1].startswith("recommended lam: ")
    results = load_results(Store.open(run))
    assert not results.unscored
    assert set(results.scores) == {"warmth", "contrast", "reference_distance", "diversity"}
    assert not any(np.isnan(table).any() for table in results.scores.values())


@pytest.mark.parametrize(
    "guard",
    [
        Guard("hps"),
        Guard("mine:b"),
        Guard("hps", margin=0.002, both=False),
        Guard("clip", margin=0.01, relative=True, both=False),
        Guard("edges", margin=0.125, relative=True, both=True),
        Guard("gold", margin=1e-7, both=False),
        Guard("gold", margin=0.12345678, both=False),
        Guard("gold", margin=0.07, relative=True, both=False),
        Guard("http://host:80/score", margin=2.0, both=True),
    ],
)
def test_a_guard_is_printed_as_it_is_read(guard: Guard) -> None:
    assert parse_guards(format_guard(guard)) == (guard,)

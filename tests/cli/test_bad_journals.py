"""Run folders that can't answer: each is told in one line with what is wrong and what to do, and code 2."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.shell import here
from tests.runs.painted import painted

from deradiff.analysis import messages
from deradiff.analysis.criteria import Guard
from deradiff.analysis.recommend import recommend
from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import Image, journalled_images, load_results
from deradiff.runs.store import Store

SOUND: dict[str, Any] = {"prompts": ["one", "two"], "seeds": [0, 1], "lams": [0, 0.5, 1]}  # 12 images, 3 a block
ASKED = ("--objective", "proxy")
Harm = Callable[[Store], None]


def scored(folder: Path, **changes: Any) -> Store:
    """A painted run, and a reward proxy of all its images."""
    store = painted(folder, **{**SOUND, **changes})
    record(store, "proxy", list(journalled_images(store).values()))
    return store


def record(
    store: Store, reward: str, images: Sequence[Image], value: Callable[[Image], float | None] | None = None
) -> None:
    """Scores, three a line; by default they rise with lam, prompt by prompt otherwise."""
    given = value or (lambda image: image.cell.lam * (1 + len(image.cell.prompt)) + image.cell.seed)
    with store.scoring() as writer:
        for at in range(0, len(images), 3):
            part = images[at : at + 3]
            keys, digests = tuple(image.key for image in part), tuple(image.sha256 for image in part)
            writer.append(ScoreRecord(reward=reward, keys=keys, sha256=digests, scores=tuple(map(given, part))))


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, lines: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def in_part(store: Store) -> None:
    record(store, "hps", list(journalled_images(store).values())[:9])


def equal(store: Store) -> None:
    record(store, "flat", list(journalled_images(store).values()), lambda image: 1.0)


def infinite(store: Store) -> None:
    lines = lines_of(store.folder / "rewards.jsonl")
    lines[1]["scores"][0], lines[2]["scores"][1] = float("inf"), float("-inf")
    write(store.folder / "rewards.jsonl", lines)


def a_text(store: Store) -> None:
    lines = lines_of(store.folder / "rewards.jsonl")
    lines[1]["scores"][0] = "much"
    write(store.folder / "rewards.jsonl", lines)


def too_few_scores(store: Store) -> None:
    lines = lines_of(store.folder / "rewards.jsonl")
    lines[3]["scores"].pop()
    write(store.folder / "rewards.jsonl", lines)


def other_images(store: Store) -> None:
    """The scores are of images that came out otherwise."""
    lines = lines_of(store.folder / "rewards.jsonl")
    for line in lines[:2]:
        line["sha256"] = ["0" * 64] * 3
    write(store.folder / "rewards.jsonl", lines)


def no_cells(store: Store) -> None:
    (store.folder / "cells.jsonl").unlink()


def damaged_cells(store: Store) -> None:
    path = store.folder / "cells.jsonl"
    path.write_text(path.read_text().replace('"sha256"', '"sha"', 1))


def cells_of_another_recipe(store: Store) -> None:
    lines = lines_of(store.folder / "cells.jsonl")
    lines[2]["cells"][0][3] = 0.25  # no longer what its key was made of
    write(store.folder / "cells.jsonl", lines)


def cut_run(store: Store) -> None:
    (store.folder / "run.json").write_text("{")


def newer_run(store: Store) -> None:
    path = store.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 9}))


def damaged_recipe(store: Store) -> None:
    path = store.folder / "run.json"
    told = json.loads(path.read_text())
    told["recipe"]["steps"] = 0
    path.write_text(json.dumps(told))


def no_run(store: Store) -> None:
    (store.folder / "run.json").unlink()


def damaged_requests(store: Store) -> None:
    write(store.folder / "requests.jsonl", [{"prompts": [], "seeds": [0], "lams": [0]}])


def nothing(store: Store) -> None:
    """What was asked for is at fault, or the question."""


def unscored(store: Store) -> None:
    (store.folder / "rewards.jsonl").unlink()


CASES: list[tuple[dict[str, Any], Harm, tuple[str, ...], str]] = [
    ({"lams": [0]}, nothing, ASKED, "one lam only, 0: nothing to compare; sweep "),
    ({"lams": [0.5, 1]}, nothing, ASKED, "lam = 0, is not among the lams 0.5, 1; sweep it"),
    ({"prompts": ["one"]}, nothing, ASKED, "one prompt only: .*; sweep "),
    ({}, infinite, ASKED, r"proxy: 2 of 12 scores in .*rewards\.jsonl are infinite.*; delete .* --rewards proxy"),
    ({}, a_text, ASKED, r"rewards\.jsonl, line 2, is damaged \(scores\.0.*\); delete that line"),
    ({}, too_few_scores, ASKED, r"rewards\.jsonl, line 4, is damaged .*; delete that line"),
    ({}, other_images, ASKED, "6 of 12 images have no score of proxy; .*deradiff score .*/run --rewards proxy "),
    ({}, no_cells, ASKED, "has no images yet; run the same deradiff sweep or search again"),
    ({}, damaged_cells, ASKED, r"cells\.jsonl, line 1, is damaged .*; delete that line and run the same command again"),
    ({}, cells_of_another_recipe, ASKED, r"cells\.jsonl, line 3, is of a run of another recipe; delete that line"),
    ({}, cut_run, ASKED, r"run\.json is damaged .*; restore it, or delete it"),
    ({}, newer_run, ASKED, r"run\.json has schema 9; this version reads 1: install a newer deradiff"),
    ({}, damaged_recipe, ASKED, r"run\.json is damaged \(steps is .*\); restore it, or give another --out"),
    ({}, no_run, ASKED, r"is no run folder: it has no run\.json"),
    ({}, damaged_requests, ASKED, r"requests\.jsonl, line 1, is damaged .*; delete that line"),
    (
        {},
        in_part,
        ("--objective", "hps"),
        "3 of 12 images have no score of hps; .*deradiff score .*/run --rewards hps ",
    ),
    ({}, in_part, (*ASKED, "--guard", "hps:-1%"), "3 of 12 images have no score of hps; .* --rewards hps"),
    (
        {},
        nothing,
        ("--objective", "fame"),
        "no reward 'fame' here; expected one of: proxy; or score the run: deradiff score .*/run --rewards fame ",
    ),
    ({}, nothing, (*ASKED, "--guard", "fame"), "no reward 'fame' here; expected one of: proxy; "),
    ({}, nothing, (*ASKED, "--guard", "proxy:much"), "can't read the guard 'proxy:much': its margin 'much' is not"),
    ({}, unscored, ASKED, "no reward 'proxy' here, nor any other; score the run: deradiff score .*/run"),
]


@pytest.mark.parametrize(("axes", "harm", "asked", "told"), CASES)
def test_a_run_that_cannot_answer_is_reported_in_one_line(
    tmp_path: Path, axes: dict[str, Any], harm: Harm, asked: tuple[str, ...], told: str
) -> None:
    harm(scored(tmp_path / "run", **axes))
    done = here("recommend", str(tmp_path / "run"), *asked, code=2)
    assert done.stdout == ""
    assert re.fullmatch(rf"Error: .*{told}.*\n", done.stderr), done.stderr


def test_a_line_that_a_crash_tore_is_no_damage(tmp_path: Path) -> None:
    store = scored(tmp_path / "run")
    words = ("recommend", str(store.folder), *ASKED)
    whole = here(*words).stdout
    for name in ("cells.jsonl", "rewards.jsonl", "requests.jsonl"):
        with (store.folder / name).open("a") as file:
            file.write('{"kind":"ce')
    assert here(*words).stdout == whole


def test_what_was_not_sampled_yet_is_reported_with_what_brings_it(tmp_path: Path) -> None:
    """A gap in the table is no mistake: what is there answers."""
    store = scored(tmp_path / "run")
    path = store.folder / "cells.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    said = here("recommend", str(store.folder), *ASKED).stdout
    assert f"3 of the images asked for aren't there yet: deradiff sweep --out {store.folder}\n" in said
    assert said.splitlines()[-1].startswith("recommended lam: ")


def test_an_image_that_has_gone_leaves_its_score(tmp_path: Path) -> None:
    store = scored(tmp_path / "run")
    words = ("recommend", str(store.folder), *ASKED)
    whole = here(*words).stdout
    min(store.folder.rglob("*.png")).unlink()
    assert here(*words).stdout == whole


def test_a_score_that_a_reward_could_not_give_is_a_gap(tmp_path: Path) -> None:
    """Such as the diversity of a prompt that was sampled at one seed only."""
    store = scored(tmp_path / "run")
    images = list(journalled_images(store).values())
    record(store, "gold", images, lambda image: None if image.cell == images[0].cell else image.cell.lam)
    said = here("recommend", str(store.folder), "--objective", "gold").stdout
    assert "score the run again" not in said
    assert "Note: Left out: 1 image of 1 of 2 prompts" in said
    assert np.isnan(load_results(store).scores["gold"]).sum() == 1


def test_a_reward_scored_in_part_is_noted_where_another_is_asked_for(tmp_path: Path) -> None:
    in_part(scored(tmp_path / "run"))
    said = here("recommend", str(tmp_path / "run"), *ASKED).stdout.splitlines()
    assert any(line.startswith("Note: Left out: 3 of 12 images have no score of hps") for line in said)
    assert said[-1].startswith("recommended lam: ")


def test_a_table_with_gaps_counts_images_and_not_places(tmp_path: Path) -> None:
    """Two prompts at three lams, and a third at lam = 0 alone: 14 images in a table of 18."""
    store = scored(tmp_path / "run")
    more = painted(tmp_path / "run", prompts=["three"], seeds=[0, 1], lams=[0])
    assert len(journalled_images(more)) == 14
    said = here("recommend", str(store.folder), *ASKED, code=2).stderr
    assert "2 of 14 images have no score of proxy" in said


def test_an_objective_that_is_the_same_at_every_lam_leaves_the_reference_and_says_why(tmp_path: Path) -> None:
    equal(scored(tmp_path / "run"))
    said = here("recommend", str(tmp_path / "run"), "--objective", "flat").stdout.splitlines()
    assert "Note: flat is the same at every lam: these scores can't choose a lam." in said
    assert said[-1].startswith("recommended lam: 0: ")


def test_the_answer_ends_on_the_lam_after_other_risks_and_what_would_settle_it(tmp_path: Path) -> None:
    """Twelve prompts, a proxy that rises, a guard of which little is known."""
    store = painted(
        tmp_path / "run", **{**SOUND, "prompts": [f"prompt {number}" for number in range(12)], "seeds": [0]}
    )
    rng, images = np.random.default_rng(0), list(journalled_images(store).values())
    for reward, slope, noise in (("proxy", 1, 0.1), ("gold", -0.05, 0.2)):
        values = {image.key: 5 + slope * image.cell.lam + noise * rng.normal() for image in images}
        record(store, reward, images, lambda image, values=values: values[image.key])
    command = ("recommend", str(tmp_path / "run"), *ASKED, "--guard", "gold:-4%")
    said = here(*command).stdout
    answer = recommend(load_results(store), "proxy", [Guard("gold", margin=0.04, relative=True, both=False)])
    assert f"At other risks: {messages.by_risk(answer)}\n" in said
    assert f"To settle it: {messages.to_settle(answer)}\n" in said
    assert said.splitlines()[-1] == f"recommended {messages.headline(answer)}"
    bold = here(*command, "--risk", "0.5", "--prefer", "best").stdout.splitlines()[-1]
    assert bold.startswith(f"recommended lam: {answer.lams_by_risk[0.5]:g}")
    assert answer.lams_by_risk[0.5] > answer.lam

"""Real searches in a run's own folder: what is there counts, what is stopped goes on, and it stays a run like any."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.runs.small_runs import quiet
from tests.search.searches import (
    BRIGHT,
    PROMPTS,
    RED,
    find,
    infer_batch,
    keys,
    known,
    settings,
    stamps,
    stopping_after,
    to_sample,
)

from deradiff.analysis.criteria import make_criteria
from deradiff.errors import ConfigError, ResultsError, RunFolderError
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.search.search import SearchResult, known_images
from deradiff.search.search_run import rewards_to_score, search_run
from deradiff.search.state import answer_searched, read_state

Models = tuple[str, str]
pytestmark = pytest.mark.usefixtures("quick", "no_advice")


class Whole(NamedTuple):
    """An undisturbed search of an empty folder."""

    run: Run
    found: SearchResult
    told: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, quick: int, models: Models) -> Whole:
    run = infer_batch(tmp_path_factory.mktemp("whole"), models)
    return Whole(run, *find(run))


@pytest.fixture
def searched(whole: Whole, tmp_path: Path, models: Models) -> Run:
    """A copy of it."""
    return infer_batch(Path(shutil.copytree(whole.run.folder, tmp_path / "searched")), models)


def on_disk(run: Run) -> SearchResult:
    """What a later command reads off the folder."""
    state = read_state(run.folder)
    assert state is not None
    return answer_searched(run.results(), state, settings().criteria)


def answer(found: SearchResult) -> object:
    return found.recommendation.lam, found.interval


def sampled(run: Run, *axes: Any) -> None:
    run.sample(*axes, progress=quiet)


def test_a_search_of_an_empty_folder_leaves_a_run_that_holds_what_it_sampled(whole: Whole) -> None:
    run, found, told = whole
    assert told[0] == "lam 0, 0.5, 1, 6 prompts x 1 seed: 18 images to sample"
    assert len(told) > 2
    assert to_sample(told) == found.images == len(stamps(run)) <= 40
    assert found.images > 36  # what is left of the budget was too little for a quarter of a block
    results = Run(run.folder).results()
    assert results.missing == 0
    assert results.lams == tuple(found.table.lams[lam] for lam in found.sampled_lams)
    assert results.path_kl is not None
    assert found.sampled.path_kl is not None
    for prompt, seed, lam in np.argwhere(known(found)):
        place = (
            results.prompts.index(found.sampled.prompts[prompt]),
            results.seeds.index(found.sampled.seeds[seed]),
            results.lams.index(found.sampled.lams[lam]),
        )
        assert results.image(*place).is_file()
        for name in (RED, BRIGHT):
            assert results.scores[name][place] == found.sampled.scores[name][prompt, seed, lam]
        assert results.path_kl[place] == found.sampled.path_kl[prompt, seed, lam]
    np.testing.assert_array_equal(known(found), known_images(found.sampled))


def test_the_same_search_elsewhere_answers_the_same(whole: Whole, tmp_path: Path, models: Models) -> None:
    run = infer_batch(tmp_path, models)
    found, told = find(run)
    assert (answer(found), told, keys(run)) == (answer(whole.found), whole.told, keys(whole.run))


def test_a_later_command_reads_the_same_answer_off_the_folder(whole: Whole, tmp_path: Path, models: Models) -> None:
    """Whether all prompts are in use, or some were never sampled."""
    many = infer_batch(tmp_path, models, batch_size=16)
    more = [*PROMPTS, *(f"another {number}" for number in range(28))]
    some, _ = find(many, settings(max_images=100), prompts=more)
    assert known(some).any(axis=(1, 2)).sum() == 32
    for run, found in ((whole.run, whole.found), (many, some)):
        before = stamps(run)
        read = on_disk(run)
        assert (answer(read), read.images, read.sampled_lams) == (answer(found), found.images, found.sampled_lams)
        assert stamps(run) == before


def test_a_swept_folder_s_images_count_and_only_what_it_lacks_is_sampled(tmp_path: Path, models: Models) -> None:
    run = infer_batch(tmp_path, models)
    sampled(run, PROMPTS, 2, [0, 0.3, 1])  # not scored
    before = stamps(run)
    found, told = find(run, settings(max_images=60))
    assert told[0] == "lam 0, 0.5, 1, 6 prompts x 1 seed: 6 images to sample"  # lam = 0.5 alone
    after = stamps(run)
    assert before.items() <= after.items()
    assert len(after) == len(before) + to_sample(told) == found.images <= 60
    assert {0, 0.3, 0.5, 1} <= {found.table.lams[lam] for lam in found.sampled_lams}
    assert 0.3 in found.table.lams  # the grid has the lams that were swept
    assert len(found.table.lams) == 33 + 1
    at = found.table.lams.index(0.3)
    assert known(found)[:, :, at].all()
    assert np.isfinite(found.sampled.scores[RED][:, :, at]).all()


def test_prompts_and_seeds_that_were_swept_are_taken_first(tmp_path: Path, models: Models) -> None:
    """The last two prompts and the second seed: what is known of any lam is of the first prompts and seeds."""
    run = infer_batch(tmp_path, models)
    sampled(run, PROMPTS[4:], [1], [0, 0.5, 1])
    before = stamps(run)
    found, told = find(run, settings(max_images=30))
    assert told[0] == "lam 0, 0.5, 1, 6 prompts x 1 seed: 12 images to sample"
    assert found.sampled.prompts == (*PROMPTS[4:], *PROMPTS[:4])
    assert found.sampled.seeds == (1, 0)
    assert len(stamps(run)) == len(before) + to_sample(told) == found.images
    used = known(found)
    for axes in ((1, 2), (0, 2)):
        there: list[bool] = np.asarray(used.any(axis=axes)).tolist()
        assert there == sorted(there, reverse=True)


def test_what_was_swept_decides_as_what_a_search_sampled_itself(whole: Whole, tmp_path: Path, models: Models) -> None:
    """A search that finds all it would have sampled ends at once, on the same answer."""
    swept = infer_batch(tmp_path, models)
    swept.sample_requests(whole.run.store.requests(), progress=quiet)
    found, told = find(swept)
    assert told == []
    assert (answer(found), found.stopped) == (answer(whole.found), whole.found.stopped)
    assert keys(swept) == keys(whole.run)


def test_a_sweep_of_a_searched_folder_samples_what_that_lacks(whole: Whole, searched: Run) -> None:
    before, counted = stamps(searched), list[int]()
    searched.sample(PROMPTS, 2, [0, 0.5, 0.7], progress=counted.append)
    there = known(whole.found)[:, :, [whole.found.table.lams.index(lam) for lam in (0, 0.5)]]
    assert sum(counted) == (~there).sum() + 6 * 2
    assert before.items() <= stamps(searched).items()
    assert searched.is_complete()
    searched.score([RED, BRIGHT], progress=quiet)
    results = searched.results()
    assert np.isfinite(results.scores[RED][:, :, [results.lams.index(lam) for lam in (0, 0.5, 0.7)]]).all()
    again, _ = find(searched, settings(max_images=60))
    assert known(again)[:, :, again.table.lams.index(0.7)].all()


@pytest.mark.parametrize("batches", [1, 3, 5], ids=lambda count: f"after {count} batches")
def test_a_stopped_search_goes_on_and_ends_as_an_undisturbed_one(
    whole: Whole, tmp_path: Path, models: Models, batches: int
) -> None:
    """Amid the first block of 3 batches, after it, and before the last."""
    with stopping_after(batches), pytest.raises(KeyboardInterrupt):
        find(infer_batch(tmp_path, models))
    before = stamps(infer_batch(tmp_path, models))
    assert len(before) < whole.found.images
    run = infer_batch(tmp_path, models)
    again, _ = find(run)
    assert before.items() <= stamps(run).items()
    assert (answer(again), again.stopped) == (answer(whole.found), whole.found.stopped)
    assert keys(run) == keys(whole.run)
    assert run.results().missing == 0


def test_a_search_stopped_twice_goes_on_too(whole: Whole, tmp_path: Path, models: Models) -> None:
    for batches in (4, 1):
        with stopping_after(batches), pytest.raises(KeyboardInterrupt):
            find(infer_batch(tmp_path, models))
    run = infer_batch(tmp_path, models)
    again, _ = find(run)
    assert answer(again) == answer(whole.found)
    assert keys(run) == keys(whole.run)


def test_another_question_begins_with_what_is_there(whole: Whole, searched: Run) -> None:
    before = stamps(searched)
    other, told = find(searched, settings(BRIGHT, (), max_images=60))
    assert other.recommendation.criteria.objectives == (BRIGHT,)
    assert known(other)[known(whole.found)].all()
    assert before.items() <= stamps(searched).items()
    assert len(stamps(searched)) == len(before) + to_sample(told) == other.images <= 60
    same, told = find(searched)
    assert told == []  # the first question has what it may use
    assert same.images == other.images


def test_max_images_is_kept(tmp_path: Path, models: Models) -> None:
    for most in (18, 25):
        run = infer_batch(tmp_path / str(most), models)
        found, _ = find(run, settings(max_images=most))
        assert len(stamps(run)) == found.images <= most
        assert f"{most} images allowed are used" in found.stopped
    swept = infer_batch(tmp_path / "swept", models)
    sampled(swept, PROMPTS, 1, [0, 0.25, 0.5, 1])
    found, told = find(swept, settings(max_images=20))  # more than is allowed was there
    assert told == []
    assert found.images == len(stamps(swept)) == 24
    assert "20 images allowed are used" in found.stopped


@pytest.mark.parametrize(("swept", "asked"), [(3.0, None), (None, 3.0)])
def test_a_search_at_another_guidance_leaves_the_others_alone(
    tmp_path: Path, models: Models, swept: float | None, asked: float | None
) -> None:
    run, alone = infer_batch(tmp_path / "both", models), infer_batch(tmp_path / "alone", models)
    sampled(run, PROMPTS[:3], 1, [0, 1], [swept])
    before = stamps(run)
    found, told = find(run, settings(max_images=24), guidance=asked)
    wanted, retold = find(alone, settings(max_images=24), guidance=asked)
    assert (answer(found), told) == (answer(wanted), retold)
    assert keys(run) == keys(alone) | {path.stem for path in before}
    assert load_results(run.store, swept).shape == (3, 1, 2)
    assert load_results(run.store, asked).shape == load_results(alone.store, asked).shape


def test_what_is_asked_about_is_scored_beside_what_else_was_named(tmp_path: Path, models: Models) -> None:
    question = make_criteria("warmth", ["faithfulness"])
    assert rewards_to_score(question) == ["warmth", "faithfulness"]
    assert rewards_to_score(question, ["contrast", "warmth"]) == ["contrast", "warmth", "faithfulness"]
    with pytest.raises(ConfigError, match=r"diversity compares images with each other.*use deradiff sweep"):
        rewards_to_score(question, ["diversity"])
    run = infer_batch(tmp_path, models)
    found, _ = find(run, settings(guards=(), max_images=24), rewards=["contrast"])
    assert set(found.recommendation.curves) == {RED, "contrast"}
    assert set(run.results().scores) == {RED, "contrast"}


def test_what_a_run_has_beside_a_search_s_own_prompts_is_left_out_of_it(tmp_path: Path, models: Models) -> None:
    run = infer_batch(tmp_path, models)
    sampled(run, ["another"], 2, [0, 0.5, 1, 1.5])
    found, told = find(run, settings(max_images=24))
    assert "another" not in found.sampled.prompts
    assert to_sample(told) == found.images == len(stamps(run)) - 8
    assert max(found.table.lams) == 1


def test_a_searched_run_answers_whatever_else_was_sampled_in_it(searched: Run) -> None:
    """More prompts count, in any order; lams beyond those of the search, and prompts sampled there alone, don't."""
    sampled(searched, ["a first", "z last"], 1, [0, 0.5, 1])
    sampled(searched, ["beyond"], 1, [1.5, 2])
    searched.score([RED, BRIGHT], progress=quiet)
    found = on_disk(searched)
    assert set(found.table.prompts) == {*PROMPTS, "a first", "z last"}
    assert max(found.table.lams) == 1
    for name in (RED, BRIGHT):
        assert np.isfinite(found.table.scores[name]).all()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "search.json is damaged"),
        ("[]", "holds a list; expected a JSON object"),
        ('{"schema_version": 1}', "search.json is damaged .*; delete it, and search again"),
    ],
)
def test_a_damaged_search_file_is_reported(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(RunFolderError, match=told):
        read_state(tmp_path)


def test_a_search_file_of_a_newer_version_or_elsewhere_is_reported(searched: Run, tmp_path: Path) -> None:
    path = searched.folder / "search.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "schema_version": 2}))
    with pytest.raises(RunFolderError, match="schema 2; this version reads 1: install a newer deradiff"):
        read_state(searched.folder)
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(RunFolderError, match="is a link out of"):
        read_state(searched.folder)
    path.unlink()
    assert read_state(searched.folder) is None  # a run like any


def test_mistakes_are_reported_before_anything_is_sampled(tmp_path: Path, models: Models) -> None:
    mistakes = [
        ({"prompts": PROMPTS[:1]}, settings(), "2 prompts or more"),
        ({}, settings(max_images=17), "takes 18 images, and 17 are allowed"),
        ({"rewards": ["diversity"]}, settings(), "compares images"),
    ]
    for given, asked, told in mistakes:
        with pytest.raises(ConfigError, match=told):
            find(infer_batch(tmp_path / "run", models), asked, **given)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_recipe_is_refused(searched: Run, models: Models) -> None:
    with pytest.raises(RunFolderError, match=r"another recipe \(steps was 2, now 3\)"):
        infer_batch(searched.folder, models, steps=3)


def test_a_kl_budget_needs_what_a_run_without_diagnostics_lacks(tmp_path: Path, models: Models) -> None:
    run = infer_batch(tmp_path, models, diagnostics=False)
    asked = settings().model_copy(update={"criteria": make_criteria(RED, kl_budget=1.0)})
    with pytest.raises(ResultsError, match="search with diagnostics"):
        search_run(run, asked, PROMPTS, [0])

"""Scores of a run's images, alone and among others: however it grew, was remade or was killed, its table is true."""

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.rewards.counting import Counting
from tests.runs import small_runs
from tests.runs.painted import cells_of, paint, painted, pixels
from tests.runs.small_runs import LENGTH, REWARD, assert_same

from deradiff import testbed
from deradiff.analysis.recommend import recommend
from deradiff.errors import PartialScoresError, RewardError, RewardUnavailableError
from deradiff.results import RewardInfo
from deradiff.rewards import check_prompts, load_reward
from deradiff.runs.cells import Cell, Request
from deradiff.runs.merge import merge
from deradiff.runs.recipe import Recipe
from deradiff.runs.records import CellsRecord, ScoreRecord
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.runs.scoring import check_group, score
from deradiff.runs.store import Store
from deradiff.runs.writer import Writer

COUNTING = f"{Counting.__module__}:Counting"
SEEN: list[str] = []  # prompts that `seeing` saw


def seeing(own: Any, prompts: list[str]) -> Any:
    SEEN.extend(prompts)
    return small_runs.brightness(own, prompts)


SEEING = f"{__name__}:seeing"
REFUSED: set[str] = set()  # prompts that `choosy` raises for


def choosy(own: Any, prompts: list[str]) -> Any:
    if refused := REFUSED.intersection(prompts):
        raise KeyError(*refused)
    return seeing(own, prompts)


CHOOSY = f"{__name__}:choosy"


def distance(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    return np.sqrt(np.square(first - second).mean((-3, -2, -1)))


def true_diversity(own: NDArray[Any]) -> NDArray[np.float64]:
    """Pair by pair, (prompts, seeds, lams); nan where there is no image, or no other one."""
    there = np.isfinite(own[..., 0, 0, 0])
    total, others = np.zeros(there.shape), np.zeros(there.shape)
    for one, other in combinations(range(own.shape[1]), 2):
        apart = distance(own[:, one], own[:, other])
        both = there[:, one] & there[:, other]
        total[:, [one, other]] += np.where(both, apart, 0)[:, None]
        others[:, [one, other]] += both[:, None]
    return np.where(there & (others > 0), total / np.maximum(others, 1), np.nan)


def assert_true(store: Store, *rewards: str, guidance: float | None = None) -> None:
    """The table holds the rewards, and what is so: of each image alone, and among all images there are by now."""
    results, own = load_results(store, guidance), pixels(store, guidance)
    truth = {"diversity": true_diversity(own), SEEING: own.mean((-3, -2, -1)), REWARD: own.mean((-3, -2, -1))}
    if 0 in results.lams:
        truth["reference_distance"] = distance(own, own[:, :, [results.lams.index(0)]])
    assert results.unscored == {}
    assert results.scores.keys() == {*rewards}
    for name in rewards:
        np.testing.assert_allclose(results.scores[name], truth[name], atol=1e-6)


def scored_keys(store: Store, reward: str) -> list[str]:
    return [key for record in store.scores() if record.reward == reward for key in record.keys]


def more(store: Store, **axes: Any) -> None:
    """Paint what is asked for and isn't there."""
    request, there = Request(**axes), set(cells_of(store))
    store.add_request(request)
    paint(store, [cell for cell in request.cells() if cell not in there])


def test_scores_are_of_the_image_they_are_filed_under(tmp_path: Path) -> None:
    store = painted(tmp_path, guidances=[1, 4])
    counted: list[int] = []
    score(store, REWARD, counted.append)
    assert sum(counted) == 72
    assert_true(store, REWARD, guidance=1)
    assert_true(store, REWARD, guidance=4)


def test_only_new_images_are_scored(tmp_path: Path) -> None:
    SEEN.clear()
    store = painted(tmp_path, prompts=["one", "two"])
    score(store, SEEING)
    assert sorted(SEEN) == ["one"] * 12 + ["two"] * 12
    before = (tmp_path / "rewards.jsonl").read_bytes()
    SEEN.clear()
    score(store, SEEING)
    assert SEEN == []
    assert (tmp_path / "rewards.jsonl").read_bytes() == before
    more(store, prompts=["one", "four"], seeds=[0], lams=[0, 5])
    counted: list[int] = []
    score(store, SEEING, counted.append)
    assert sorted(SEEN) == ["four"] * 2 + ["one"]
    assert counted[0] == 24
    assert sum(counted) == 27
    assert_true(store, SEEING)


def test_new_images_leave_a_reward_out_until_they_are_scored(tmp_path: Path) -> None:
    store = painted(tmp_path)
    for name in (REWARD, "diversity"):
        score(store, name)
    more(store, prompts=["four"], seeds=[0, 1], lams=[0])
    results = load_results(store)
    assert (results.scores, results.unscored) == ({}, {REWARD: 2, "diversity": 2})
    score(store, REWARD)
    results = load_results(store)
    assert (list(results.scores), results.unscored) == ([REWARD], {"diversity": 2})


def test_images_of_equal_bytes_and_other_prompts_have_scores_of_their_own(tmp_path: Path) -> None:
    store = painted(tmp_path)
    request = Request(prompts=["a longer prompt", "short"], seeds=[0], lams=[0])
    same = store.image(cells_of(store)[0]).read_bytes()
    with store.writing() as writer:
        for cell in request.cells():
            digest = writer.save(store.image(cell), same)
            info = next(store.records()).info
            writer.append(CellsRecord.of([cell], [store.keys(cell)], [digest], {}, info))
    score(store, LENGTH)
    results = load_results(store)
    for place in np.ndindex(results.shape):
        if results.images[place]:
            assert results.scores[LENGTH][place] == len(results.prompts[place[0]])
    assert np.isfinite(results.scores[LENGTH]).sum() == 38


@pytest.mark.parametrize("name", ["diversity", "reference_distance"])
@pytest.mark.parametrize("batch_size", [1, 5, 36])
def test_metrics_of_groups_do_not_depend_on_how_images_were_made(tmp_path: Path, batch_size: int, name: str) -> None:
    store = painted(tmp_path, recipe={"batch_size": batch_size}, guidances=[1, 4])
    counted: list[int] = []
    score(store, name, counted.append)
    assert sum(counted) == 72
    for guidance in (1, 4):
        assert_true(store, name, guidance=guidance)
    first, second = (load_results(store, guidance).scores[name] for guidance in (1, 4))
    assert not np.allclose(first, second)


def test_a_group_that_grows_is_scored_anew_and_others_are_not(tmp_path: Path) -> None:
    store = painted(tmp_path, seeds=[0, 1])
    score(store, "diversity")
    first = scored_keys(store, "diversity")
    more(store, prompts=["two"], seeds=[2], lams=[0, 1])
    assert load_results(store).unscored == {"diversity": 6}
    score(store, "diversity")
    new = scored_keys(store, "diversity")[len(first) :]
    assert sorted(new) == sorted(
        store.keys(Cell("two", seed, None, float(lam))) for seed in (0, 1, 2) for lam in (0, 1)
    )
    assert_true(store, "diversity")
    before = (tmp_path / "rewards.jsonl").read_bytes()
    score(store, "diversity")
    assert (tmp_path / "rewards.jsonl").read_bytes() == before


def test_more_lams_keep_the_distances_to_the_reference_true(tmp_path: Path) -> None:
    store = painted(tmp_path, lams=[0, 1])
    score(store, "reference_distance")
    more(store, prompts=["one", "three"], seeds=[0, 1, 2, 3], lams=[-2, 0.5])
    assert load_results(store).unscored == {"reference_distance": 32}
    score(store, "reference_distance")
    assert_true(store, "reference_distance")


def test_groups_that_are_too_small_are_gaps(tmp_path: Path) -> None:
    store = painted(tmp_path, seeds=[0, 1])
    more(store, prompts=["four"], seeds=[0], lams=[0, 1])
    for name in ("diversity", "reference_distance"):
        score(store, name)
    assert np.isnan(load_results(store).scores["diversity"]).sum() == 2 + 4
    assert_true(store, "diversity", "reference_distance")
    more(store, prompts=["four"], seeds=[3], lams=[0])
    score(store, "diversity")
    score(store, "reference_distance")
    assert_true(store, "diversity", "reference_distance")


def test_a_group_that_comes_later_and_is_too_small_is_a_gap_too(tmp_path: Path) -> None:
    store = painted(tmp_path, seeds=[0, 1])
    for name in ("diversity", "reference_distance"):
        score(store, name)
    more(store, prompts=["four"], seeds=[0], lams=[1])
    for name in ("diversity", "reference_distance"):
        score(store, name)
    results = load_results(store)
    assert results.unscored == {}
    four = results.prompts.index("four")
    assert np.isnan(results.scores["diversity"][four]).all()
    assert np.isnan(results.scores["reference_distance"][four]).all()
    assert np.isfinite(np.delete(results.scores["diversity"], four, axis=0)).all()


def test_an_image_made_otherwise_is_scored_anew_with_all_that_are_compared_with_it(tmp_path: Path) -> None:
    store = painted(tmp_path)
    for name in (REWARD, "diversity", "reference_distance"):
        score(store, name)
    remade = Cell("two", 2, None, 0.0)
    paint(store, [remade], version=1)
    results = load_results(store)
    assert (results.scores, results.unscored) == ({}, {REWARD: 1, "diversity": 4, "reference_distance": 3})
    before = {name: scored_keys(store, name) for name in results.unscored}
    for name in results.unscored:
        score(store, name)
        assert len(scored_keys(store, name)) == len(before[name]) + results.unscored[name]
    assert_true(store, REWARD, "diversity", "reference_distance")


def test_stale_scores_are_never_shown_wherever_their_lines_stand(tmp_path: Path) -> None:
    """Of an image as it was, and of groups as they were, after the lines of today."""
    store, remade = painted(tmp_path, seeds=[0, 1]), Cell("one", 0, None, 0.0)
    for name in (REWARD, "diversity"):
        score(store, name)
    stale = [json.loads(line) for line in (tmp_path / "rewards.jsonl").read_text().splitlines()]
    for line in stale:  # every group grows, and one image is made otherwise
        for place, key in enumerate(line["keys"]):
            if line["reward"] == "diversity" or key == store.keys(remade):
                line["scores"][place] = 99.0
    more(store, prompts=["one", "two", "three"], seeds=[2], lams=[-1, 0, 1])
    paint(store, [remade], version=1)
    for name in (REWARD, "diversity"):
        score(store, name)
    with (tmp_path / "rewards.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in stale)
    assert_true(store, REWARD, "diversity")


@pytest.mark.parametrize("survives", [0, 1, 3])
def test_killed_halfway_the_remainder_is_scored_later(
    tmp_path: Path, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = painted(tmp_path, seeds=[0, 1])
    score(store, REWARD)
    score(store, "diversity")
    more(store, prompts=["one", "two"], seeds=[2], lams=[-1, 0, 1])
    append, left = Writer.append, [survives]

    def killed(writer: Writer, record: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(writer, record)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            score(store, "diversity")
    assert load_results(store).unscored == {REWARD: 6, "diversity": 18 - 3 * survives}
    score(store, "diversity")
    score(store, REWARD)
    assert_true(store, REWARD, "diversity")


def test_a_deleted_image_is_not_scored_and_keeps_what_it_scored(tmp_path: Path) -> None:
    store = painted(tmp_path)
    score(store, REWARD)
    before = load_results(store).scores[REWARD]
    gone = store.image(cells_of(store)[4])
    gone.unlink()
    score(store, "saturation")
    results = load_results(store)
    assert results.unscored == {}
    assert np.array_equal(results.scores[REWARD], before)
    assert np.isnan(results.scores["saturation"]).sum() == 1


def test_a_guidance_whose_turn_to_be_scored_did_not_come_is_reported(tmp_path: Path) -> None:
    store = painted(tmp_path, guidances=[1, 4])
    score(store, REWARD)
    first = {store.keys(cell) for cell in cells_of(store) if cell.guidance == 1}
    lines = [json.loads(line) for line in (tmp_path / "rewards.jsonl").read_text().splitlines()]
    kept = []
    for line in lines:
        if places := [place for place, key in enumerate(line["keys"]) if key in first]:
            columns = {name: [line[name][place] for place in places] for name in ("keys", "sha256", "scores")}
            kept.append({**line, **columns})
    (tmp_path / "rewards.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert (load_results(store, 1).unscored, load_results(store, 4).unscored) == ({}, {REWARD: 36})


def test_a_run_in_which_nothing_can_be_compared_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="needs at least 2 seeds"):
        score(painted(tmp_path / "one", seeds=[0]), "diversity")
    store = painted(tmp_path / "two", lams=[0.5, 1])
    with pytest.raises(RewardError, match="needs lam = 0"):
        score(store, "reference_distance")
    assert list(store.scores()) == []


def test_what_cannot_be_compared_is_reported_before_it_is_sampled() -> None:
    def asked(**axes: Any) -> list[Request]:
        return [Request(**{"prompts": ["one"], "seeds": [0, 1], "lams": [0, 1], **axes})]

    diversity, moved = load_reward("diversity"), load_reward("reference_distance")
    check_group(diversity, asked())
    check_group(diversity, asked(lams=[1]))
    check_group(moved, asked(seeds=[0]))
    check_group(moved, asked() + asked(lams=[2]))
    check_group(load_reward(REWARD), asked(seeds=[0], lams=[1]))
    with pytest.raises(RewardError, match="needs at least 2 seeds"):
        check_group(diversity, asked(seeds=[0]))
    with pytest.raises(RewardError, match=r"needs lam = 0, and the run has 0\.5, 1"):
        check_group(moved, asked(lams=[0.5, 1]))


@pytest.mark.parametrize(
    ("reward", "word"),
    [
        ("nonsense", "choose from"),
        ("no.such:thing", "can't be imported"),
        (f"{small_runs.__name__}:REWARD", "expected a function"),
        (f"{small_runs.__name__}:too_few", "a finite number each"),
        (f"{small_runs.__name__}:not_finite", "a finite number each"),
        (f"{small_runs.__name__}:nothing", "returned a NoneType"),
    ],
)
def test_bad_rewards_are_refused_and_leave_nothing(tmp_path: Path, reward: str, word: str) -> None:
    store = painted(tmp_path)
    with pytest.raises(RewardError, match=word):
        score(store, reward)
    assert list(store.scores()) == []


def test_a_prompt_that_a_reward_fails_on_leaves_the_others_their_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = painted(tmp_path / "run"), painted(tmp_path / "whole")
    monkeypatch.setattr(sys.modules[__name__], "REFUSED", {"two"})
    for _ in range(2):  # it is asked again, and noted once
        with pytest.raises(
            PartialScoresError, match=r"failed on 12 images of 1 prompt \('two'\): .*KeyError"
        ) as caught:
            score(store, CHOOSY)
        assert caught.value.prompts == {"two"}
        assert load_results(store).unscored == {}
        assert load_results(store).unscored_prompts(CHOOSY) == ["two"]
        assert [value is None for record in store.scores() for value in record.scores].count(True) == 12
    results = load_results(store)
    (message,) = results.unscored_prompts_messages()
    assert message.startswith("12 images of 1 of 3 prompts ('two'), which have no score of")
    score(whole, REWARD)
    rows = [results.prompts.index(prompt) for prompt in results.prompts if prompt != "two"]
    assert np.array_equal(results.scores[CHOOSY][rows], load_results(whole).scores[REWARD][rows])
    answer = recommend(results, objectives=[CHOOSY])
    assert message in answer.skipped_rewards
    assert max(answer.curves[CHOOSY].pairs) == 8
    REFUSED.clear()
    score(store, CHOOSY)
    assert np.array_equal(load_results(store).scores[CHOOSY], load_results(whole).scores[REWARD])


def test_a_merged_run_takes_the_score_and_not_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REFUSED", {"two"})
    failed, whole = painted(tmp_path / "failed"), painted(tmp_path / "whole")
    with pytest.raises(PartialScoresError):
        score(failed, CHOOSY)
    REFUSED.clear()
    score(whole, CHOOSY)
    for number, folders in enumerate(([failed.folder, whole.folder], [whole.folder, failed.folder])):
        merge(folders, tmp_path / f"out{number}")
        merged = load_results(Store.open(tmp_path / f"out{number}"))
        assert np.array_equal(merged.scores[CHOOSY], load_results(whole).scores[CHOOSY])


def test_prompts_are_checked_without_images_where_a_reward_can_show(tmp_path: Path) -> None:
    known, asked = "a red circle", ["a red circle", "a dog", "a cat"]
    reward = load_reward("faithfulness")
    check_prompts("faithfulness", reward, [known])
    check_prompts(REWARD, load_reward(REWARD), asked)
    with pytest.raises(RewardError, match=r"can't score 2 of 3 prompts \('a dog', 'a cat'\): not a caption"):
        check_prompts("faithfulness", reward, asked)


def test_a_server_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(own: Any, prompts: list[str]) -> Any:
        SEEN.extend(prompts)
        raise RewardUnavailableError("no answer")

    monkeypatch.setattr(sys.modules[__name__], "choosy", unavailable)
    SEEN.clear()
    with pytest.raises(RewardUnavailableError, match="failed on 8 images"):
        score(painted(tmp_path), CHOOSY)
    assert len(SEEN) == 8


def test_what_cards_say_of_scales_is_reported_in_the_table(tmp_path: Path) -> None:
    store = painted(tmp_path)
    for name in ("diversity", "reference_distance", "saturation", REWARD):
        score(store, name)
    steady = RewardInfo(
        direction="steady",
        margin=0.25,
        relative=True,
        margin_source="this project's choice: a quarter of the reference",
    )
    wanted = {
        "diversity": RewardInfo(),
        "reference_distance": RewardInfo(direction="none"),
        "saturation": steady,
        REWARD: RewardInfo(),
    }
    assert load_results(store).rewards == wanted
    assert load_results(store).info("saturation") == steady


def test_a_published_models_scores_serve_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERADIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counting, "asked", [])
    first = painted(tmp_path / "first")
    score(first, COUNTING)
    assert len(Counting.asked) == 36
    again = painted(tmp_path / "again")
    score(again, COUNTING)
    assert len(Counting.asked) == 36
    scores = load_results(again).scores[COUNTING]
    np.testing.assert_allclose(scores, pixels(again)[..., 0].mean((-2, -1)), atol=1e-6)
    assert np.array_equal(scores, load_results(first).scores[COUNTING])
    paint(again, [Cell("one", 0, None, float(lam)) for lam in (-1, 0, 1)], version=1)
    score(again, COUNTING)
    assert Counting.asked[36:] == ["one"] * 3


def test_scores_are_by_reward_and_the_latest_counts(tmp_path: Path) -> None:
    store = painted(tmp_path)
    score(store, REWARD)
    before = load_results(store)
    latest = [record.model_copy(update={"scores": tuple(range(len(record.keys)))}) for record in store.scores()]
    other = [record.model_copy(update={"reward": "other"}) for record in store.scores()]
    with store.scoring() as writer:
        for record in (*latest, *other):
            writer.append(record)
    after = load_results(store)
    assert np.array_equal(after.scores["other"], before.scores[REWARD])
    assert not np.allclose(after.scores[REWARD], before.scores[REWARD])
    with store.scoring() as writer:
        for record in list(store.scores()):
            if record.reward == "other":
                writer.append(ScoreRecord.model_validate({**record.model_dump(), "reward": REWARD}))
    assert np.array_equal(load_results(store).scores[REWARD], before.scores[REWARD])


def test_on_the_embedded_pipeline(tmp_path: Path) -> None:
    recipe = Recipe(model="embedded", anchor="embedded", steps=3, batch_size=4)
    run = Run(tmp_path, recipe)
    assert Path(testbed.resolve_model(run.recipe.model)).is_dir()
    run.sample(["a white circle", "a purple triangle"], 2, [0, 2], progress=small_runs.quiet)
    run.sample(lams=[1], progress=small_runs.quiet)
    run.score(["diversity", "reference_distance"], progress=small_runs.quiet)
    results = run.results()
    pictures = [np.asarray(Image.open(file).convert("RGB")) / 255 for file in results.images.flat]
    own = np.reshape(pictures, (*results.shape, 64, 64, 3))
    np.testing.assert_allclose(results.scores["diversity"], true_diversity(own), rtol=1e-4)
    moved = results.scores["reference_distance"]
    np.testing.assert_allclose(moved, distance(own, own[:, :, [0]]), rtol=1e-4)
    assert (np.diff(moved) > 0).all()
    assert_same(Run(tmp_path).results(), results)

"""A real comparison on the embedded pipeline: every arm is what it says it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.compare.comparisons import ANCHOR, PROMPTS, REWARDS, SISTER, WEAKER, aligned, comparison, locate
from tests.runs.small_runs import contents, images, quiet, stamps

from deradiff import testbed
from deradiff.compare import compare
from deradiff.compare.outcome import ANCHOR as ANCHOR_ARM
from deradiff.compare.outcome import DERADIFF, REFERENCE, WEIGHTS, Table
from deradiff.compare.run import Runs
from deradiff.compare.tables import _same_seed_indices, rms_distances
from deradiff.errors import ConfigError, ResultsError, RewardError, RunFolderError
from deradiff.runs.run import Run
from deradiff.runs.runner import sampling
from deradiff.sampling import noise_seed, to_pixels


@pytest.fixture(scope="module")
def pipe() -> Any:
    return testbed.load_pipeline()


@pytest.fixture(scope="module")
def done(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table]:
    folder = tmp_path_factory.mktemp("comparison") / "run"
    [table] = compare(folder, comparison(), pipe, REWARDS, locate)
    return folder, table


def plain(pipe: Any, lora: str | None) -> list[float]:
    """Warmth of the same images, drawn by diffusers alone."""
    if lora is not None:
        pipe.load_lora_weights(locate(lora))
    scores: list[float] = []
    for prompt in PROMPTS:
        generators = [torch.Generator().manual_seed(noise_seed(prompt, seed)) for seed in (0, 1)]
        settings = {"num_images_per_prompt": 2, "num_inference_steps": 2, "guidance_scale": 1.0}
        images = pipe(prompt, generator=generators, **settings).images
        scores += testbed.warmth(torch.stack([to_pixels(image) for image in images]), [prompt] * 2).tolist()
    if lora is not None:
        pipe.unload_lora_weights()
    return scores


def test_retrained_means_are_each_models_own(pipe: Any, done: tuple[Path, Table]) -> None:
    for means, names in zip(done[1].retrained_means, [(ANCHOR, SISTER), (WEAKER,)], strict=True):
        assert means == pytest.approx([np.mean(plain(pipe, name)) for name in names], abs=2e-3)


def test_arms_that_ignore_beta_are_the_models_alone(pipe: Any, done: tuple[Path, Table]) -> None:
    for arm, name in ((REFERENCE, None), (ANCHOR_ARM, ANCHOR)):
        assert [row.mean for row in done[1].arm_rows(arm)] == pytest.approx([np.mean(plain(pipe, name))] * 2, abs=2e-3)


def test_at_the_anchors_beta_all_lams_are_the_anchor(done: tuple[Path, Table]) -> None:
    """At beta .05 lam is 1; at .1 it is .5, and the two ways of mixing are neither the anchor nor each other."""
    table = done[1]
    anchored, *_ = table.arm_rows(ANCHOR_ARM)
    for arm in (DERADIFF, WEIGHTS):
        assert table.arm_rows(arm)[0].mean == pytest.approx(anchored.mean, abs=2e-3)
        assert abs(table.arm_rows(arm)[1].mean - anchored.mean) > 2e-3
        assert table.image_distances[arm][0] == pytest.approx(table.image_distances[ANCHOR_ARM][0], abs=1e-3)
    assert table.image_distances[DERADIFF][1] != table.image_distances[WEIGHTS][1]
    assert table.own_model


def test_the_anchor_is_the_model_of_its_own_seed(done: tuple[Path, Table]) -> None:
    row = done[1].arm_rows(DERADIFF)[0]
    assert row.same_seed_share == pytest.approx(0, abs=0.02)
    assert abs(row.share_of_spread or 0) > 0.02


def test_the_models_of_a_seed_are_found_by_it() -> None:
    by_beta: list[list[tuple[Any, Any]]] = [
        [(aligned(name), None) for name in names] for names in ((ANCHOR, SISTER), ("warmth-beta0.1-seed1",))
    ]
    assert _same_seed_indices(by_beta, 1) == (1, 0)
    assert _same_seed_indices(by_beta, 0) == ()  # the second beta lacks it


def test_half_of_the_anchors_seed_noise_is_its_error_against_both(done: tuple[Path, Table]) -> None:
    table = done[1]
    row = table.arm_rows(DERADIFF)[0]
    assert row.seed_noise_ratio == pytest.approx(0.5, abs=0.02)
    assert table.seed_image_distance is not None
    assert table.image_distances[DERADIFF][0] == pytest.approx(table.seed_image_distance / 2, rel=0.02)


def outcome(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("results.json", "compare.html")]


def test_the_same_again_changes_nothing_and_mends_what_is_gone(
    pipe: Any, done: tuple[Path, Table], tmp_path: Path
) -> None:
    folder = shutil.copytree(done[0], tmp_path / "run")
    before, drawn, found = contents(folder), images(folder), outcome(folder)
    compare(folder, comparison(), pipe, REWARDS, locate)
    assert contents(folder) == before
    assert "scratch" in json.loads((folder / "compare.json").read_text())  # names on disk stay
    shutil.rmtree(next(folder.glob("scratch-*")) / "images")
    shutil.rmtree(folder / "weights-beta0.05-seed0-own")
    compare(folder, comparison(), pipe, REWARDS, locate)
    assert images(folder) == drawn
    assert outcome(folder) == found


def test_an_arm_that_was_grown_by_hand_is_compared_as_before(
    pipe: Any, done: tuple[Path, Table], tmp_path: Path
) -> None:
    """Its folder is a run, which may be asked for more; the comparison is of what it asks for."""
    folder = shutil.copytree(done[0], tmp_path / "run")
    for arm in list(comparison().arms())[::2]:
        run = Run(folder / arm.folder, arm.recipe, device="cpu")
        lams = [-0.5, *arm.request.lams]
        (more,) = run.requests([*PROMPTS, "a blue circle"], [0, 1, 5], lams, [1.0])
        (other,) = run.requests(PROMPTS, [0], lams, [2.0])
        with sampling(pipe, locate(arm.recipe.anchor), run.recipe) as sampler:
            run.sample_requests([more, other], sampler=sampler, progress=quiet)
        run.score(REWARDS, progress=quiet)
    found, drawn = outcome(folder), {arm.folder: stamps(folder / arm.folder) for arm in comparison().arms()}
    [table] = compare(folder, comparison(), pipe, REWARDS, locate)
    assert table == done[1]
    assert outcome(folder) == found
    assert {arm.folder: stamps(folder / arm.folder) for arm in comparison().arms()} == drawn


def test_a_reward_can_be_added_but_nothing_else_changed(pipe: Any, done: tuple[Path, Table], tmp_path: Path) -> None:
    folder = shutil.copytree(done[0], tmp_path / "run")
    drawn = images(folder)
    both = compare(folder, comparison(), pipe, ["faithfulness", *REWARDS], locate)
    assert [table.reward for table in both] == ["faithfulness", "warmth"]
    assert both[1].rows == done[1].rows
    assert images(folder) == drawn
    models = "beta0.05-seed0, beta0.05-seed1, beta0.1-seed0"
    changed: list[tuple[dict[str, Any], str]] = [
        ({"steps": 3}, "another comparison .*steps"),
        ({"seeds": [0]}, "another comparison .*seeds"),
        (
            {"retrained": [aligned(ANCHOR), aligned(WEAKER)]},
            f"another comparison .retrained.* {models}.* now beta0.05-seed0",
        ),
        ({"schedulers": [None, "DDIMScheduler"]}, "another comparison .schedulers"),
    ]
    for changes, expected in changed:
        with pytest.raises(RunFolderError, match=expected):
            compare(folder, comparison(**changes), pipe, REWARDS, locate)
    (folder / "compare.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"compare\.json is damaged"):
        compare(folder, comparison(), pipe, REWARDS, locate)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 8}, "batch_size.*4.*8"),
        ({"steps": 3}, "steps.*2.*3"),
        ({"seeds": [0, 7]}, "seeds.*0, 1.*0, 7"),
        ({"guidance": 3.5}, "guidances.*1.0.*3.5"),
    ],
)
def test_what_differs_is_reported_however_much_is_the_same(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    many: dict[str, Any] = {
        "prompts": [f"a picture of a very long description number {number}" for number in range(99)]
    }
    (tmp_path / "compare.json").write_text(comparison(**many).model_dump_json())
    Runs(tmp_path, comparison(**many))
    with pytest.raises(RunFolderError, match=rf"another comparison \(.*{told}.*\); give another --out$") as refused:
        Runs(tmp_path, comparison(**many, **changes))
    assert len(str(refused.value)) < 1000


def test_an_unknown_reward_or_scheduler_is_reported_before_anything_is_sampled(pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'NoScheduler' is no scheduler for StableDiffusionPipeline"):
        compare(tmp_path / "run", comparison(schedulers=[None, "NoScheduler"]), pipe, REWARDS, locate)
    assert not (tmp_path / "run").exists()
    for reward, expected in (("nonsense", "nonsense"), ("reference_distance", "needs lam = 0")):
        with pytest.raises(RewardError, match=expected):
            compare(tmp_path / "run", comparison(), pipe, ["warmth", reward], locate)
    assert not (tmp_path / "run").exists()


def test_the_json_holds_the_table(done: tuple[Path, Table]) -> None:
    found = json.loads((done[0] / "results.json").read_text())
    assert found["betas"] == [0.05, 0.1]
    assert found["share_of_spread_deradiff"] == done[1].headline["share_of_spread_deradiff"]
    assert len(found["rows"]) == 5 * 2


def test_the_optimum_is_weighed_from_further_samples_of_the_reference(pipe: Any, tmp_path: Path) -> None:
    """By the first reward, whichever reward is looked at."""
    weak = {ANCHOR: 10.0, WEAKER: 20.0}  # betas at which 16 samples weigh nearly alike
    models = [aligned(name).model_copy(update={"beta": beta}) for name, beta in weak.items()]
    own = comparison(anchors=models[:1], retrained=models, optimum=16)
    tables = compare(tmp_path / "run", own, pipe, [*REWARDS, "scene_distance"], locate)
    pool = Run(tmp_path / "run/pool-own").results()
    assert pool.seeds == tuple(range(2, 18))  # the arms have 0 and 1
    assert pool.lams == (0.0,)
    scores = {name: table[:, :, 0] for name, table in pool.scores.items()}
    for table in tables:
        assert table.optimum is not None
        for row in table.optimum.arm_rows(REFERENCE):
            weights = np.exp(scores["warmth"] / row.beta)
            expected = ((weights * scores[table.reward]).sum(1) / weights.sum(1)).mean()
            assert row.optimum == pytest.approx(expected)
        betas = [row.beta for row in table.optimum.arm_rows(REFERENCE)]
        assert (table.optimum.prompts, betas) == (2, [10.0, 20.0])
        for arm in (DERADIFF, REFERENCE, ANCHOR_ARM):
            means = {row.beta: row.mean for row in table.arm_rows(arm)}
            assert [row.mean for row in table.optimum.arm_rows(arm)] == pytest.approx([means[beta] for beta in betas])
        retrained = {beta: np.mean(means) for beta, means in zip(table.betas, table.retrained_means, strict=True)}
        assert [row.mean for row in table.optimum.arm_rows("scratch")] == pytest.approx(
            [retrained[beta] for beta in betas]
        )
    assert json.loads((tmp_path / "run/results.json").read_text())["tables"][0]["optimum"]["prompts"] == 2


def test_an_optimum_of_other_units_or_few_samples_is_refused(pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="15 or more samples"):
        comparison(optimum=3)
    for reduction in ("mean", "sum"):
        convention = {"convention": {"reduction": reduction, "factor": 0.5, "timestep_weight": 1.0}}
        models = [aligned(name).model_copy(update=convention) for name in (ANCHOR, WEAKER)]
        other = comparison(anchors=models[:1], retrained=models, optimum=16)
        with pytest.raises(ConfigError, match="units of the reward"):
            compare(tmp_path / "run", other, pipe, REWARDS, locate)
        assert not (tmp_path / "run").exists()


def test_image_distances_are_rms_over_pixels_in_unit_range(tmp_path: Path) -> None:
    def drawn(name: str, *levels: int) -> Any:
        files = np.empty((1, len(levels)), dtype=object)
        for place, level in enumerate(levels):
            files[0, place] = str(tmp_path / f"{name}{place}.png")
            image = Image.new("RGB", (4, 4), (level, level, level))
            image.putpixel((0, 0), (255, 255, 255))
            image.save(files[0, place])
        return files

    files = {"black": drawn("black", 0, 0), "mixed": drawn("mixed", 51, 0)}
    pair = ("black", "mixed")
    expected = 0.2 * (15 / 16) ** 0.5 / 2  # one of two images differs, by 51 of 255 in all pixels but one
    assert rms_distances(files, [pair])[pair] == pytest.approx(expected)
    Image.new("RGB", (2, 2)).save(tmp_path / "mixed1.png")
    with pytest.raises(ResultsError, match="several sizes"):
        rms_distances(files, [pair])
    (tmp_path / "mixed1.png").unlink()
    with pytest.raises(ResultsError, match=r"mixed1\.png"):
        rms_distances(files, [pair])

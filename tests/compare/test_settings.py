"""What can be compared, and the runs that come of it."""

from pathlib import Path
from typing import Any

import pytest
from tests.compare.comparisons import ANCHOR, SISTER, WEAKER, aligned, comparison

from deradiff.compare import Aligned, Comparison
from deradiff.errors import AnchorError, ConfigError


def test_every_arm_is_a_run_of_the_same_prompts_and_seeds() -> None:
    own = comparison(schedulers=["DDIMScheduler", None])
    arms = own.arms()
    names = ["scratch-beta0.05-seed0", "scratch-beta0.05-seed1", "scratch-beta0.1-seed0"]
    names += ["deradiff-beta0.05-seed0", "weights-beta0.05-seed0"]
    assert [arm.folder for arm in arms] == [f"{name}-{at}" for at in ("DDIMScheduler", "own") for name in names]
    assert len({(arm.request.prompts, arm.request.seeds, arm.request.guidances, arm.recipe.steps) for arm in arms}) == 1
    by_name = {arm.folder: arm for arm in arms}
    assert by_name["scratch-beta0.1-seed0-own"].request.lams == (1.0,)
    assert by_name["scratch-beta0.1-seed0-own"].recipe.anchor == WEAKER
    assert by_name["scratch-beta0.1-seed0-own"].recipe.anchor_beta == 0.1
    assert by_name["deradiff-beta0.05-seed0-own"].request.lams == (0.0, 0.5, 1.0)  # lam = .05 / .1
    assert by_name["weights-beta0.05-seed0-own"].request.lams == (0.5, 1.0)
    assert {arm.recipe.policy for name, arm in by_name.items() if "weights" in name} == {"weights"}
    assert {arm.recipe.policy for name, arm in by_name.items() if "weights" not in name} == {"exact"}
    assert by_name["deradiff-beta0.05-seed0-DDIMScheduler"].recipe.scheduler == "DDIMScheduler"
    assert by_name["deradiff-beta0.05-seed0-own"].recipe.scheduler is None


def test_each_anchor_extrapolates_from_its_own_beta() -> None:
    own = comparison(anchors=[aligned(ANCHOR), aligned(WEAKER)])
    assert own.deradiff(aligned(WEAKER), None).request.lams == (0.0, 1.0, 2.0)
    assert own.deradiff(aligned(WEAKER), None) in own.arms()
    assert own.betas == (0.05, 0.1)


def test_the_optimum_s_samples_are_the_reference_s_at_further_seeds() -> None:
    pool = comparison(optimum=20).pool("DDIMScheduler")
    assert (pool.folder, pool.recipe.scheduler) == ("pool-DDIMScheduler", "DDIMScheduler")
    assert (pool.request.seeds, pool.request.lams) == (tuple(range(2, 22)), (0.0,))
    assert pool in comparison(optimum=20, schedulers=["DDIMScheduler"]).arms()
    assert not any(arm.folder.startswith("pool") for arm in comparison().arms())


def test_settings_survive_the_disk() -> None:
    own = comparison(schedulers=["DDIMScheduler"])
    again = Comparison.model_validate_json(own.model_dump_json())
    assert (again, again.arms()) == (own, own.arms())


def rounded(model: Aligned, weight: float) -> Aligned:
    return model.model_copy(update={"convention": {**model.convention, "timestep_weight": weight}})


def test_betas_of_other_conventions_are_refused() -> None:
    mine = aligned(WEAKER)
    other = mine.model_copy(update={"name": "other", "convention": {**mine.convention, "reduction": "mean"}})
    with pytest.raises(ConfigError, match=f"{ANCHOR} and other.*reduction.*'sum', 'mean'"):
        comparison(retrained=[aligned(ANCHOR), other])
    weight = mine.convention["timestep_weight"]
    comparison(retrained=[aligned(ANCHOR), rounded(mine, weight * (1 + 1e-15))])
    with pytest.raises(ConfigError, match="timestep_weight"):
        comparison(retrained=[aligned(ANCHOR), rounded(mine, weight * 1.001)])
    lacking = mine.model_copy(update={"convention": {}})
    with pytest.raises(ConfigError, match=r"factor: 1\.0, None"):
        comparison(retrained=[aligned(ANCHOR), lacking])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"retrained": [ANCHOR, SISTER]}, "two or more betas, got .0.05."),
        ({"retrained": [ANCHOR, WEAKER, WEAKER]}, "retrained model of beta0.1-seed0"),
        ({"anchors": [ANCHOR, ANCHOR]}, "an anchor of beta0.05-seed0"),
        ({"schedulers": [None, None]}, "scheduler None"),
        ({"prompts": ["alone"]}, "two or more prompts, got 1"),
        ({"prompts": []}, "prompts"),
        ({"guidance": float("nan")}, "guidances"),
        ({"steps": 0}, "steps"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_can_not_be_answered_is_refused(changes: dict[str, Any], expected: str) -> None:
    models = {key: [aligned(name) for name in changes[key]] for key in ("anchors", "retrained") if key in changes}
    with pytest.raises(ConfigError, match=expected):
        comparison(**{**changes, **models})


def test_a_card_must_say_beta_and_seed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "deradiff.json").write_text('{"beta": 1}')
    with pytest.raises(AnchorError, match="card of mine lacks seed, beta_convention"):
        Aligned.read("mine", str(tmp_path))
    with pytest.raises(AnchorError, match="no folder or file someone/on-the-hub; expected an aligned model"):
        Aligned.read("someone/on-the-hub", "someone/on-the-hub")


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ('{"beta": "high", "seed": 0, "beta_convention": {}}', "beta is 'high'; expected a number"),
        ('{"beta": -1, "seed": 0, "beta_convention": {}}', "beta is -1; expected a number above 0"),
        ('{"beta": 1, "seed": 0, "beta_convention": "kl"}', "convention is 'kl'; expected an object"),
        ('{"beta": 1', "is damaged"),
        ("[1]", "holds a list; expected a JSON object"),
    ],
)
def test_a_card_that_cannot_be_used_is_reported(tmp_path: Path, card: str, told: str) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/config.json").write_text("{}")
    (tmp_path / "deradiff.json").write_text(card)
    with pytest.raises(AnchorError, match=told):
        Aligned.read("mine", str(tmp_path))

"""What commands answer of runs that grew, or that are not finished."""

from pathlib import Path

import numpy as np
import pytest
from tests.cli.shell import here
from tests.runs.painted import painted
from tests.runs.small_runs import REWARD

from deradiff.runs.cells import Request
from deradiff.runs.results import load_results
from deradiff.runs.scoring import score


@pytest.mark.parametrize(
    ("reward", "asked"), [("reference_distance", ("--lams", "1")), ("diversity", ("--seeds", "1"))]
)
def test_what_images_are_compared_with_may_have_been_asked_for_before(
    tmp_path: Path, reward: str, asked: tuple[str, str]
) -> None:
    store = painted(tmp_path / "run")
    here("sweep", "--out", str(store.folder), *asked, "--rewards", reward)
    assert np.isfinite(load_results(store).scores[reward]).all()


@pytest.mark.parametrize(("reward", "missing"), [("reference_distance", "lam = 0"), ("diversity", "2 seeds")])
def test_what_no_image_can_be_compared_with_is_reported_before_anything_is_sampled(
    tmp_path: Path, reward: str, missing: str
) -> None:
    command = ["sweep", "--out", str(tmp_path / "run"), "--prompt", "one", "--prompt", "two", "--seeds", "1"]
    told = here(*command, "--lams", "0.5,1", "--rewards", reward, code=2)
    assert missing in told.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["report", "recommend"])
def test_a_guidance_whose_turn_to_be_sampled_did_not_come_does_not_spoil_the_answer(
    tmp_path: Path, command: str
) -> None:
    store = painted(tmp_path / "run", guidances=[1])
    score(store, REWARD)
    store.add_request(Request(prompts=["one"], seeds=[0], lams=[0], guidances=[4]))
    said = here(command, str(store.folder), "--objective", REWARD).stdout
    assert said.count("recommended lam") == 1

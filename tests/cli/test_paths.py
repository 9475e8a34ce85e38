"""What paths tell, on the command line: real processes on the embedded pipeline."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.shell import here, mistaken

from deradiff import testbed
from deradiff.anchor.source import card_of
from deradiff.runs.results import load_results
from deradiff.runs.store import Store

PROMPTS = ["a red circle", "a blue square", "a green triangle"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of the ends and of one lam between, corrected, with an anchor of its own."""
    folder = tmp_path_factory.mktemp("paths")
    shutil.copytree(testbed.anchor_path(), folder / "anchor")
    words = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    words += ["--anchor", str(folder / "anchor"), "--lams", "0,0.5,1", "--seeds", "4", "--steps", "8"]
    words += ["--particles", "2", "--rewards", "warmth", "--batch-size", "24", "--out", str(folder / "run")]
    here("sweep", *words)
    return folder / "run"


def test_the_ends_show_the_curve(run: Path) -> None:
    printed = here("reweight", str(run), "--objective", "warmth", "--lams", "0,0.25,1").stdout
    assert "from images at lam = 0, 1" in printed
    assert re.findall(r"^│ (\S+) +│", printed, re.MULTILINE) == ["0", "0.25", "1"]
    mistaken("reweight", str(run), "--objective", "warmth", "--lams", "0,1.5", expected="lam = 1.5 is beyond [0, 1]")
    mistaken("reweight", str(run), "--objective", "warmth", "--from", "0.5", expected="can't be reweighted")


def test_a_calibration_is_reported_and_written_into_the_card_where_asked(run: Path) -> None:
    words = ["calibrate", str(run), "--objective", "warmth"]
    printed = here(*words).stdout
    assert "L rises by" in printed
    assert "its nominal beta is 0.2" in printed
    anchor = run.parent / "anchor"
    assert "behaves_like" not in card_of(anchor)
    assert "its refusal is written: " in here(*words, "--write").stdout  # of three prompts
    told = card_of(anchor)["behaves_like"]["warmth"]
    assert told["images"] == 12
    assert card_of(anchor)["beta"] == 0.2
    # the run goes on: what an anchor learns of itself doesn't make it another one
    Path(next((run / "images").rglob("*.png"))).unlink()
    assert here("sweep", "--out", str(run)).stdout.startswith("1 images to sample")


def test_the_report_shows_the_exact_mixture_and_the_particles(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    for words in ("Trusted range", "from the images at lam = 0, 1;", "distinct ancestors", "exact, 2 particles"):
        assert words in page
    assert "implicit reward" in page


def test_particles_of_one_prompt(tmp_path: Path) -> None:
    words = ["generate", PROMPTS[0], "--lam", "0,0.5,1", "--steps", "4", "--out"]
    here(*words, str(tmp_path / "plain.png"))
    here(*words, str(tmp_path / "corrected.png"), "--particles", "3")
    plain, corrected = (Image.open(tmp_path / name) for name in ("plain.png", "corrected.png"))
    assert plain.size == corrected.size == (192, 64)
    for left, same in ((0, True), (64, False), (128, True)):
        box = (left, 0, left + 64, 64)
        assert (plain.crop(box).tobytes() == corrected.crop(box).tobytes()) == same


def test_a_deterministic_sampler_has_nothing_to_reweight(tmp_path: Path) -> None:
    words = ["--prompt", PROMPTS[0], "--prompt", PROMPTS[1], "--lams", "0,1", "--seeds", "2", "--steps", "2"]
    words += ["--scheduler", "DDIMScheduler", "--rewards", "warmth", "--out", str(tmp_path)]
    here("sweep", *words)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Trusted range" not in page
    assert "exact</em> mixture" not in page
    mistaken("reweight", str(tmp_path), "--objective", "warmth", expected="recorded no implicit reward L")
    results = load_results(Store.open(tmp_path))
    assert results.path_kl is not None
    assert {"ess", "ancestors", "implicit_reward"}.isdisjoint(results.paths)

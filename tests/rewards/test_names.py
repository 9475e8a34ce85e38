"""Rewards by name: registered ones, folders, modules, cards, and the commands that take them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.rewards.published import NAMES, loaded
from tests.runs.small_runs import REWARD, finished, recipe_of, save_models
from typer.testing import CliRunner

from deradiff.cli.commands import app
from deradiff.errors import RewardError
from deradiff.rewards import Card, card_of, find_registered, load_reward, reward_name, reward_names, weights
from deradiff.rewards.clip import CLIPScore
from deradiff.rewards.hps import HPS
from deradiff.sampling import to_pixels


def test_names_and_cards() -> None:
    assert set(NAMES) < set(reward_names())
    for name in NAMES:
        card = card_of(find_registered(name))
        assert isinstance(card, Card)
        assert card.info.direction == card.direction == "higher"
        assert all((card.name, card.measures, card.range, card.licence, card.citation))
        assert all(repo in card.model for repo in find_registered(name).published.values())
    assert card_of(lambda pixels, prompts: pixels) is None


def test_a_scorer_is_built_as_asked(folders: dict[str, Path]) -> None:
    scorer = loaded("clip", folders["clip"], "bfloat16")
    assert scorer.dtype == torch.bfloat16
    assert card_of(scorer) is CLIPScore.card
    own = load_reward(f"deradiff.rewards.clip:CLIPScore={folders['clip']}", device="meta")
    assert isinstance(own, CLIPScore)
    assert own.device.type == "meta"


@pytest.mark.parametrize(
    ("text", "name"),
    [("hps", "hps"), ("hps=/a=b", "hps"), ("m:f=/x", "m:f"), ("https://host/a?b=c", "https://host/a")],
)
def test_the_name_scores_are_kept_under(text: str, name: str) -> None:
    assert reward_name(text) == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nobody", r"no reward is called 'nobody'; choose from \['aesthetic', "),
        ("nobody=/folder", r"no reward is called 'nobody'"),
        ("htp://x/y", r"can't read the reward 'htp://x/y'"),
        ("hps=", r"expected NAME, NAME=/folder"),
        ("warmth=/folder", r"'warmth' is a function and takes no files; leave '=/folder' out"),
        ("hps=/nowhere", r"/nowhere lacks the file HPS_v2.1_compressed.pt; copy it there from the hub's xswu/HPSv2"),
        ("math:pi", r"'math:pi' is a float; expected a function"),
    ],
)
def test_mistakes(name: str, told: str) -> None:
    with pytest.raises(RewardError, match=told):
        load_reward(name)


def test_nothing_heavy_is_imported_to_list_them() -> None:
    code = (
        "import sys; from deradiff.rewards import *; from deradiff.rewards import find_registered, reward_names\n"
        "[find_registered(name) for name in reward_names()]\n"
        "print([name for name in ('transformers', 'requests', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_lists_them() -> None:
    told = CliRunner().invoke(app, ["rewards"], env={"COLUMNS": "250"}).stdout
    for part in ("image_reward", "THUDM/ImageReward", "arXiv:2306.09341", "Apache-2.0", "about 1 to 10", "warmth"):
        assert part in told


def test_the_command_scores_a_run_by_files_of_a_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    run = finished(tmp_path / "run", recipe_of(save_models(tmp_path)), prompts=["a red circle"], seeds=1, lams=[0, 1])
    words = ["score", str(run.folder), "--rewards", f"hps={folders['hps']}", "--dtype", "float16"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    results = run.results()
    assert set(results.scores) == {"hps"}
    assert results.info("hps") == HPS.card.info
    pixels = torch.stack([to_pixels(Image.open(file)) for file in results.images.flat])
    expected = loaded("hps", folders["hps"], "float16")(pixels, ["a red circle"] * 2)
    assert results.scores["hps"].flatten().tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_reward_by_files_of_a_folder_may_be_asked_about_by_its_name(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are where it was said that they are, and nowhere else."""

    def elsewhere(repo: str, name: str) -> Path:
        raise AssertionError("the hub is asked")

    monkeypatch.setattr(weights, "_download", elsewhere)
    model, anchor = save_models(tmp_path)
    words = ["sweep", "--model", model, "--anchor", anchor, "--prompt", "a", "--prompt", "b", "--lams", "0,1"]
    words += ["--seeds", "1", "--steps", "1", "--rewards", f"{REWARD},hps={folders['hps']}", "--guard", "hps:-1%"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("recommended lam: ")

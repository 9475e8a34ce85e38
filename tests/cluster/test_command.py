"""``--ray`` and what belongs to it, on the command line."""

import sys
from pathlib import Path

import pytest
from tests.runs.small_runs import REWARD, finished, recipe_of

from deradiff.cli.commands import run
from deradiff.cli.common import with_ray_address
from deradiff.cli.planning import cluster_given
from deradiff.cli.terminal import run_in_terminal
from deradiff.cluster import Cluster
from deradiff.errors import AlignError, ClusterError, ConfigError, QuarantineError
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

NOTHING = {"ray": None, "ray_workers": None, "gpus_per_worker": None, "storage": None, "retry_quarantined": False}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sweep", "--ray"], ["sweep", "--ray", "local"]),
        (["sweep", "--ray", "--out", "x"], ["sweep", "--ray", "local", "--out", "x"]),
        (["sweep", "--ray", "head:6379", "--out", "x"], ["sweep", "--ray", "head:6379", "--out", "x"]),
        (["sweep", "--ray=head:6379"], ["sweep", "--ray=head:6379"]),
        ([], []),
    ],
)
def test_an_address_may_be_left_out(words: list[str], expected: list[str]) -> None:
    assert with_ray_address(words) == expected


def test_options_make_a_cluster() -> None:
    assert cluster_given(NOTHING) is None
    assert cluster_given({**NOTHING, "ray": "local"}) == Cluster()
    given = {**NOTHING, "ray": "head:6379", "ray_workers": 2, "storage": "s3://bucket", "retry_quarantined": True}
    assert cluster_given(given) == Cluster(
        address="head:6379", workers=2, storage="s3://bucket", retry_quarantined=True
    )


@pytest.mark.parametrize(
    ("option", "value"), [("ray_workers", 2), ("gpus_per_worker", 0.5), ("storage", "s3://b"), ("retry_quarantined", 1)]
)
def test_options_of_a_cluster_need_one(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} needs a cluster: add --ray"):
        cluster_given({**NOTHING, option: value})


def test_a_storage_is_a_url() -> None:
    with pytest.raises(ConfigError, match="expected a URL"):
        Cluster(storage="/mnt/shared")


def test_a_quarantine_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise QuarantineError("3 images are quarantined")

    assert run_in_terminal(command) == 3
    assert capsys.readouterr().err == "Error: 3 images are quarantined\n"


def test_without_ray_the_error_says_how_to_install_it(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'deradiff\[ray\]'"):
        Run(tmp_path / "run", recipe, cluster=Cluster()).sample(["a"], 1, [0], progress=lambda count: None)


def test_commands_that_score_and_label_take_a_cluster(
    tmp_path: Path, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    finished(tmp_path / "run", recipe_of(models))
    with pytest.raises(ClusterError, match="isn't installed"):
        run(["score", str(tmp_path / "run"), "--rewards", REWARD, "--ray"])
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    words = ["align", "--model", models[0], "--self-label", REWARD, "--prompts", str(tmp_path / "prompts.txt")]
    with pytest.raises(ClusterError, match="isn't installed"):
        run([*words, "--beta", "1", "--out", str(tmp_path / "anchor"), "--ray"])


def test_a_table_of_preferences_needs_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(AlignError, match="--ray goes with --self-label alone"):
        run(["align", "--data", str(tmp_path), "--beta", "1", "--out", str(tmp_path / "anchor"), "--ray"])


def test_the_command_takes_a_cluster(tmp_path: Path, models: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["sweep", "--model", models[0], "--anchor", models[1], "--prompt", "a", "--out", str(tmp_path / "run")]
    with pytest.raises(ClusterError, match="isn't installed"):
        run([*words, "--lams", "0,1", "--seeds", "1", "--steps", "2", "--ray"])

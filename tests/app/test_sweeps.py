"""A run that grows in the background: stopped and gone on with, it ends with the bytes of an undisturbed one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.runs.small_runs import finished, images

from deradiff.app.engine import Engine
from deradiff.app.requests import ImageRequest
from deradiff.app.sweep import requests_of
from deradiff.app.sweeps import MAX_IMAGES, Sweeps
from deradiff.app.turns import Job
from deradiff.cluster import Cluster
from deradiff.errors import ConfigError
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

PROMPTS = "a red circle\na blue square\n\n a red circle "


def test_a_sweep_that_is_stopped_goes_on_and_has_the_bytes_of_an_undisturbed_one(
    engine: Engine, recipe: Recipe, tmp_path: Path
) -> None:
    sweeps = Sweeps(Run(tmp_path / "run", recipe), engine)
    requests = requests_of(PROMPTS, 2, [0, 0.5, 1], None)
    sweeps.start(requests)
    with pytest.raises(ConfigError, match="already"):
        sweeps.start(requests)
    while not sweeps.state.done:
        assert sweeps.state.is_running
        threading.Event().wait(0.005)
    beside = ImageRequest(prompt="somebody else's", lams=(("aligned", 1.3),), steps=2)
    engine.draw(beside, Job())  # between two blocks
    sweeps.stop()
    sweeps.join()
    assert sweeps.state.phase in ("stopped", "done")
    sweeps.start(requests)
    sweeps.join()
    assert sweeps.state.phase == "done"
    undisturbed = finished(tmp_path / "undisturbed", recipe)
    assert images(tmp_path / "run") == images(undisturbed.folder)


class Waiting(Cluster):
    """A cluster whose workers never start."""

    @contextmanager
    def sampler(self, *args: Any, check: Callable[[], object] = dict, **kwargs: Any) -> Iterator[Any]:
        yield SimpleNamespace(sample_into=lambda *args: self._wait(check))

    @contextmanager
    def scorer(self, *args: Any, check: Callable[[], object] = dict, **kwargs: Any) -> Iterator[Any]:
        yield lambda batches: self._wait(check)

    def _wait(self, check: Callable[[], object]) -> Iterator[Any]:
        while True:
            check()
            threading.Event().wait(0.005)
            yield from ()


def test_on_a_cluster_too_stop_ends_what_is_running(engine: Engine, recipe: Recipe, tmp_path: Path) -> None:
    finished(tmp_path / "run", recipe)
    sweeps = Sweeps(Run(tmp_path / "run", recipe, cluster=Waiting()), engine)
    for phase, begin in (
        ("sampling", lambda: sweeps.start(requests_of("another prompt", 1, [0.5], None))),
        ("scoring", lambda: sweeps.score(["saturation"])),
    ):
        begin()
        assert sweeps.state.phase == phase
        sweeps.stop()
        sweeps.join()
        assert sweeps.state.phase == "stopped"


def test_what_fails_in_the_background_is_told(engine: Engine, recipe: Recipe, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", recipe)
    sweeps = Sweeps(run, engine)
    (tmp_path / "run").write_text("in the way")
    sweeps.start(requests_of(PROMPTS, 1, [0.5], None))
    sweeps.join()
    assert sweeps.state.phase == "failed"
    assert str(tmp_path / "run") in sweeps.state.problem


@pytest.mark.parametrize(
    ("text", "seeds", "lams", "guidance", "named"),
    [
        (" \n", 1, [0.5], None, "no prompts"),
        (None, 1, [0.5], None, "no prompts"),
        ("a", 1, [], None, "no lam"),
        ("a", 0, [0.5], None, "0 seeds"),
        ("a", 65, [0.5], None, "65 seeds"),
        ("a", None, [0.5], None, "seeds"),
        ("x" * 2001, 1, [0.5], None, "2,001 characters"),
        ("a", 1, [0.5], 51.0, "guidance 51"),
        ("a", 1, [0.5], float("nan"), "guidance nan"),
    ],
)
def test_what_a_form_may_ask_for(text: str, seeds: int, lams: list[float], guidance: float | None, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        requests_of(text, seeds, lams, guidance)


@pytest.mark.parametrize("name", ["os:system", "http://127.0.0.1:1/score", "clip=/etc"])
def test_only_registered_rewards_score_for_visitors(name: str, engine: Engine, recipe: Recipe, tmp_path: Path) -> None:
    sweeps = Sweeps(Run(tmp_path / "run", recipe), engine)
    with pytest.raises(ConfigError, match="no registered reward"):
        sweeps.score([name])
    assert sweeps.state.phase == "idle"


def test_a_sweep_from_the_page_is_bounded(engine: Engine, recipe: Recipe, tmp_path: Path) -> None:
    text = "\n".join(str(number) for number in range(MAX_IMAGES + 1))
    with pytest.raises(ConfigError, match="more than the 20,000"):
        Sweeps(Run(tmp_path / "run", recipe), engine).start(requests_of(text, 1, [0.5], None))

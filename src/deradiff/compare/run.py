"""Running a comparison: one run for each arm, each in its own folder below the output folder."""

import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from deradiff.compare.aligned import check_units
from deradiff.compare.settings import Arm, Comparison
from deradiff.errors import RunFolderError
from deradiff.reading import exists, read_model
from deradiff.results import Results
from deradiff.rewards import load_reward
from deradiff.runs.models import check_scheduler
from deradiff.runs.run import Progress, Run
from deradiff.runs.runner import sampling
from deradiff.runs.scoring import check_group
from deradiff.runs.store import check_folder
from deradiff.writing import locked, write_errors, write_whole


class Runs:
    """The runs of a comparison below one folder; nothing is written before :meth:`sample_and_score`.

    Attributes:
        folder: holds ``compare.json`` and a run folder for each arm.
        comparison: the settings.

    Raises:
        RunFolderError: the folder holds another comparison, or can't be read.
    """

    def __init__(self, folder: Path, comparison: Comparison) -> None:
        check_folder(folder)
        self.folder, self.comparison = folder, comparison
        self._settings = folder / "compare.json"
        self._check_same()
        self._runs = {arm.folder: Run(folder / arm.folder, arm.recipe) for arm in comparison.arms()}

    def results(self, arm: Arm) -> Results:
        """The table of one arm.

        Raises:
            RunFolderError: the run is incomplete.
        """
        run, request = self._runs[arm.folder], arm.request
        if missing := run.cost([request]).missing:
            raise RunFolderError(
                f"{run.folder} lacks {missing} of {request.count} images; run the same deradiff compare again"
            )
        return run.results(request.guidances[0]).on_axes(request.prompts, request.seeds, request.lams)

    def sample_and_score(
        self,
        pipe: Any,
        rewards: Sequence[str],
        locate: Callable[[str], str] = str,
        progress: Progress = lambda count: None,
    ) -> None:
        """Sample and score what is missing; a killed process loses only its current batch.

        Args:
            pipe: the reference pipeline, loaded; left as it was.
            rewards: names or ``module:function``; more may be given later.
            locate: maps a model's name to its folder or hub id.
            progress: receives the number of images sampled since its last call, first of those on disk.

        Raises:
            ConfigError: a setting that the pipeline doesn't support, or an optimum with betas in other units.
            RewardError: an unknown reward, or scores that aren't one finite number for each image.
            RunFolderError: the disk is full.
        """
        arms = self.comparison.arms()
        for reward in rewards:
            function = load_reward(reward)
            for arm in arms:
                check_group(function, [arm.request])
        for scheduler in self.comparison.schedulers:
            check_scheduler(pipe, scheduler)
        if self.comparison.optimum:
            check_units(self.comparison.anchors[0], pipe.scheduler)
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".compare.lock"):
            self._check_same()  # again, now that no other process can write
            if not exists(self._settings, "the comparison"):
                write_whole(self._settings, self.comparison.model_dump_json(indent=1, by_alias=True).encode())
            for arm in arms:
                self._run_arm(arm, pipe, rewards, locate, progress)

    def _run_arm(
        self, arm: Arm, pipe: Any, rewards: Sequence[str], locate: Callable[[str], str], progress: Progress
    ) -> None:
        run = self._runs[arm.folder]
        progress(arm.request.count - run.cost([arm.request]).missing)
        with sampling(pipe, locate(arm.recipe.anchor), run.recipe) as sampler:
            run.sample_requests([arm.request], sampler=sampler, progress=progress)
        run.score(rewards, progress=lambda count: None)

    def _check_same(self) -> None:
        if not exists(self._settings, "the comparison"):
            return
        previous, current = _flatten(read_comparison(self._settings)), _flatten(self.comparison)
        for name, value in current.items():
            if previous[name] != value:
                shown = f"{name}: {_abbreviate(previous[name])}; now {_abbreviate(value)}"
                raise RunFolderError(f"{self.folder} holds another comparison ({shown}); give another --out")


def _abbreviate(value: object) -> str:
    return shorten(value, 200) if isinstance(value, str) else reprlib.repr(value)


def _flatten(comparison: Comparison) -> dict[str, Any]:
    """All settings by name, those of recipe and request included; the order of models doesn't matter."""
    settings = {**dict(comparison.recipe), **dict(comparison.request), "schedulers": comparison.schedulers}
    models = {name: ", ".join(sorted(map(str, getattr(comparison, name)))) for name in ("anchors", "retrained")}
    return {**models, **settings, "optimum": comparison.optimum}


def read_comparison(path: Path) -> Comparison:
    """The settings that a comparison began with.

    Raises:
        RunFolderError: the file is damaged, or a link out of its folder.
    """
    remedy = "restore it, or give another --out"
    return read_model(Comparison, path, "the comparison", remedy, inside=path.parent)

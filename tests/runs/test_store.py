"""The run folder: what it is, who may write to it, what goes wrong, and where models are found."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests import processes
from tests.runs.painted import JOURNAL, cells_of, paint
from tests.runs.small_runs import REWARD, contents, finished, grown, images, pipeline, quiet, recipe_of

from deradiff.errors import ConfigError, RunFolderError
from deradiff.runs.missing import missing_of
from deradiff.runs.recipe import Recipe
from deradiff.runs.results import load_results
from deradiff.runs.run import Run
from deradiff.runs.runner import sampling
from deradiff.runs.scoring import score
from deradiff.runs.store import Store


def change_run_file(store: Store, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads((store.folder / "run.json").read_text())
    change(told)
    (store.folder / "run.json").write_text(json.dumps(told))


def test_a_folder_of_a_newer_version_is_refused(store: Store) -> None:
    change_run_file(store, lambda told: told.update(schema=2))
    for open_it in (Store.open, lambda folder: Store.at(folder, store.recipe), Run):
        with pytest.raises(RunFolderError, match=r"run\.json has schema 2; .*install a newer deradiff"):
            open_it(store.folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "{}",
        '{"schema": 0}',
        '{"schema": true}',
        '{"schema": "1", "recipe": {}}',
        '{"schema": 1}',
        '{"schema": 1, "recipe": 3}',
        '{"schema": 1, "recipe": {"steps": 0}}',
        '{"schema": 1, "recipe": {"stepps": 2}}',
    ],
)
def test_a_damaged_run_file_is_reported(store: Store, content: str) -> None:
    (store.folder / "run.json").write_text(content)
    for open_it in (Store.open, lambda folder: Store.at(folder, store.recipe), Run):
        with pytest.raises(RunFolderError, match=r"run\.json"):
            open_it(store.folder)


@pytest.mark.parametrize("name", [JOURNAL, "cells-1-of-2.jsonl"])
def test_a_journal_without_its_recipe_is_reported(store: Store, name: str) -> None:
    (store.folder / "run.json").unlink()
    (store.folder / JOURNAL).rename(store.folder / name)
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        Store.at(store.folder, store.recipe)


def test_a_file_is_no_run_folder(tmp_path: Path, store: Store) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "within"):
        with pytest.raises(RunFolderError, match="is a file"):
            Store.at(folder, store.recipe)
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(RunFolderError, match="no run folder"):
            Store.open(folder)


def test_another_recipe_in_the_same_folder_is_refused_with_the_setting_named(store: Store) -> None:
    other = store.recipe.model_copy(update={"steps": 3, "dtype": "float16"})
    with pytest.raises(RunFolderError, match=r"steps was 25, now 3; dtype was float32, now float16.*another --out"):
        Store.at(store.folder, other)


def test_a_recipe_that_came_there_meanwhile_is_refused(tmp_path: Path, store: Store) -> None:
    late = Store.at(tmp_path / "new", store.recipe.model_copy(update={"steps": 3}))
    with Store.at(tmp_path / "new", store.recipe).writing((0, 2)):
        pass
    with pytest.raises(RunFolderError, match="steps was 25, now 3"), late.writing((1, 2)):
        pass


def test_a_run_without_images_is_reported(tmp_path: Path, store: Store) -> None:
    new = Store.at(tmp_path / "new", store.recipe)
    for read in (load_results, lambda own: score(own, REWARD)):
        with pytest.raises(RunFolderError, match="has no images yet"):
            read(new)


# Several processes


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[None]:
    """A lock in the hands of another process."""
    code = f"from filelock import FileLock; own = FileLock({str(lock)!r}).acquire(); print('held', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.communicate("\n")


@pytest.mark.parametrize(
    ("theirs", "mine", "refused"),
    [
        (".cells.lock", (0, 1), True),
        (".cells.lock", (0, 2), True),
        (".cells-1-of-2.lock", (0, 2), True),
        (".cells-1-of-2.lock", (0, 1), True),
        (".cells-1-of-2.lock", (0, 3), True),
        (".cells-1-of-2.lock", (1, 2), False),
        (".cells-1-of-12.lock", (1, 2), True),
        (".rewards.lock", (0, 1), False),
    ],
)
def test_two_processes_never_sample_the_same_images(
    store: Store, theirs: str, mine: tuple[int, int], refused: bool
) -> None:
    telling = pytest.raises(RunFolderError, match="another process") if refused else nullcontext()
    with held_elsewhere(store.folder / theirs), telling, store.writing(mine):
        pass
    with store.writing(mine):
        pass


def test_the_second_writer_is_refused_before_it_samples(tmp_path: Path, recipe: Recipe) -> None:
    run = finished(tmp_path, recipe, lams=[0])
    with run.store.writing(), pytest.raises(RunFolderError, match="another process writes to"):
        finished(tmp_path, recipe)
    assert len(images(tmp_path)) == 4


def test_two_processes_never_score_one_run_at_once(store: Store) -> None:
    with store.scoring(), pytest.raises(RunFolderError, match="another process"), store.scoring():
        pass


def test_a_run_can_be_scored_and_read_while_it_is_sampled(store: Store) -> None:
    with store.writing():
        score(store, "diversity")
        assert load_results(store).scores.keys() == {REWARD, "diversity"}


def test_requests_of_several_processes_are_all_noted(store: Store) -> None:
    code = f"""
from pathlib import Path
from deradiff.runs.cells import Request
from deradiff.runs.store import Store
import sys
store = Store.open(Path({str(store.folder)!r}))
for number in range(20):
    store.add_request(Request(prompts=[f"{{number}}"], seeds=[0], lams=[float(sys.argv[1]), 9]))
    store.add_request(Request(prompts=["both"], seeds=[number], lams=[0]))
"""
    others = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(2)]
    assert [other.wait() for other in others] == [0, 0]
    asked = Store.open(store.folder).requests()
    assert len(asked) == len(set(asked)) == 1 + 2 * 20 + 20


# What else goes wrong


def test_what_a_killed_process_left_half_written_is_thrown_away(tmp_path: Path, recipe: Recipe) -> None:
    whole = contents(finished(tmp_path, recipe).folder)
    (tmp_path / ".cells.parts").mkdir()
    (tmp_path / ".cells.parts" / Path(min(images(tmp_path))).name).write_bytes(b"\x89PNG")
    (tmp_path / min(images(tmp_path))).unlink()
    journal = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    finished(tmp_path, recipe)
    assert not (tmp_path / ".cells.parts").exists()
    after = contents(tmp_path)
    assert {name: after[name] for name in whole if name != JOURNAL} == {
        name: whole[name] for name in whole if name != JOURNAL
    }
    assert (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)[: len(journal)] == journal


def sample_on_full_disks(folder: Path, recipe: Recipe, limits: list[int]) -> list[str]:
    """The errors where no file may be larger than a limit, one after another."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    errors = []
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
        with pytest.raises(RunFolderError) as error:
            finished(folder, recipe, seeds=6)
        errors.append(str(error.value))
    return errors


def test_a_full_disk_is_reported_and_the_run_goes_on_from_there(tmp_path: Path, models: tuple[str, str]) -> None:
    recipe = recipe_of(models, steps=1)
    whole = contents(finished(tmp_path / "whole", recipe, seeds=6).folder)
    largest = max(len(content) for name, content in whole.items() if name.endswith(".png"))
    limits = [10, largest - 1, len(whole[JOURNAL]) // 2]  # too little for the recipe, for an image, for the journal
    assert len(whole["run.json"]) < limits[1] < limits[2]
    errors = processes.call(sample_on_full_disks, tmp_path / "run", recipe, limits)
    assert [error.startswith("can't write to") for error in errors] == [True] * 3
    for name in images(tmp_path / "run"):
        Image.open(tmp_path / "run" / name).load()
    finished(tmp_path / "run", recipe, seeds=6)
    assert contents(tmp_path / "run") == whole


def test_a_folder_is_not_claimed_by_a_recipe_that_cannot_start(
    tmp_path: Path, models: tuple[str, str], recipe: Recipe
) -> None:
    for change, word in (({"scheduler": "NoSuch"}, "choose from"), ({"anchor": "no/where"}, "anchor")):
        with pytest.raises(ValueError, match=word):
            finished(tmp_path / "run", recipe_of(models, **change))
    assert not (tmp_path / "run").exists()
    finished(tmp_path / "run", recipe)


@pytest.mark.parametrize("harm", [lambda b: b[:60], lambda b: b[:-9] + b"x" + b[-8:], lambda b: b""])
def test_a_damaged_image_is_reported_by_who_reads_it(store: Store, harm: Callable[[bytes], bytes]) -> None:
    broken = sorted(store.folder.rglob("*.png"))[5]
    broken.write_bytes(harm(broken.read_bytes()))
    told = rf"{broken.name} is missing or damaged .*; delete it, run the same deradiff sweep"
    with pytest.raises(RunFolderError, match=told):
        score(store, "saturation")
    broken.unlink()  # as it says
    paint(store, list(missing_of(store)(cells_of(store))))
    score(store, "saturation")
    assert load_results(store).unscored == {}


# Which models


def test_models_count_by_their_content_wherever_they_are(tmp_path: Path, models: tuple[str, str]) -> None:
    run = finished(tmp_path / "run", recipe_of(models), lams=[0])
    moved = [shutil.copytree(own, tmp_path / f"moved-{Path(own).name}") for own in models]
    again = grown(tmp_path / "run", recipe_of((str(moved[0]), str(moved[1]))), lams=[1])
    assert again.recipe.identity == run.recipe.identity
    assert Store.open(tmp_path / "run").recipe.model == str(moved[0])  # where they are now
    assert images(tmp_path / "run") == images(finished(tmp_path / "whole", recipe_of(models), lams=[0, 1]).folder)


@pytest.mark.parametrize("which", ["model", "anchor"])
def test_other_weights_under_the_same_name_are_refused(tmp_path: Path, models: tuple[str, str], which: str) -> None:
    copies = [str(shutil.copytree(path, tmp_path / Path(path).name)) for path in models]
    recipe = recipe_of((copies[0], copies[1]))
    finished(tmp_path / "run", recipe)
    weights = tmp_path / which / "unet" / "diffusion_pytorch_model.safetensors"
    other = Path(models[1 if which == "model" else 0]) / "unet" / weights.name
    weights.write_bytes(other.read_bytes())
    for given in (recipe, None):
        with pytest.raises(RunFolderError, match=f"the {which} was .* with other weights"):
            in_folder(Run(tmp_path / "run", given), {"lams": [2]})
    weights.write_bytes((Path(models[0 if which == "model" else 1]) / "unet" / weights.name).read_bytes())
    in_folder(Run(tmp_path / "run", recipe), {"lams": [2]})
    assert len(images(tmp_path / "run")) == 16


@pytest.fixture
def beside(tmp_path: Path, models: tuple[str, str]) -> Path:
    """A folder with models, to work in."""
    for name, path in zip(("model", "anchor"), models, strict=True):
        shutil.copytree(path, tmp_path / "here" / "models" / name)
    return tmp_path / "here"


RELATIVE = ("models/model", "models/anchor")


def in_folder(run: Run, axes: dict[str, Any]) -> None:
    """As a process of its own samples, that has to find the models."""
    run.sample(**axes, progress=quiet)


def test_relative_models_are_found_from_any_working_directory(
    tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(beside)
    in_folder(Run("runs/mine", recipe_of(RELATIVE)), {"prompts": ["one"], "seeds": 1, "lams": [0]})
    assert json.loads(Path("runs/mine/run.json").read_text())["recipe"]["model"] == "../../models/model"
    monkeypatch.chdir(tmp_path)
    in_folder(Run(beside / "runs" / "mine"), {"lams": [1]})
    monkeypatch.chdir(beside / "runs")
    in_folder(Run("mine", recipe_of(("../models/model", "../models/anchor"))), {"lams": [0.5]})
    in_folder(Run("mine"), {"lams": [2]})
    assert len(images(Path("mine"))) == 4


def test_a_run_moved_with_its_models_goes_on(tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(beside)
    in_folder(Run("runs/mine", recipe_of(RELATIVE)), {"prompts": ["one"], "seeds": 1, "lams": [0]})
    monkeypatch.chdir(tmp_path)
    for step, lam in enumerate([1, 0.5, 2]):
        in_folder(Run(Path("here") / "runs" / "mine" if step == 1 else beside / "runs" / "mine"), {"lams": [lam]})
        moved = tmp_path / f"there{step}"
        beside.rename(moved)
        beside = moved
        if step == 0:
            (tmp_path / "here").symlink_to(moved)
    assert len(images(beside / "runs" / "mine")) == 4


def test_relative_models_are_found_where_the_run_is_reached_by_a_link(
    tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "within" / "place").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "within" / "place")
    monkeypatch.chdir(beside)
    in_folder(Run(tmp_path / "link" / "run", recipe_of(RELATIVE)), {"prompts": ["one"], "seeds": 1, "lams": [0]})
    in_folder(Run(tmp_path / "link" / "run"), {"lams": [1]})
    assert len(images(tmp_path / "link" / "run")) == 2


def test_a_model_that_cannot_be_hashed_is_known_by_its_name(tmp_path: Path, models: tuple[str, str]) -> None:
    """Such as a hub id that isn't in the local cache when the run begins."""
    recipe = recipe_of(("nobody/nothing", models[1]))
    store = Run(tmp_path, recipe).store
    assert store.recipe.model_hash is None
    with sampling(pipeline(models[0]), models[1], store.recipe), store.writing():
        pass
    assert Run(tmp_path, recipe).recipe.identity == store.recipe.identity
    with pytest.raises(RunFolderError, match="the model was nobody/nothing, now nobody/else"):
        Run(tmp_path, recipe_of(("nobody/else", models[1])))


def test_nothing_to_sample_with_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names model and anchor"):
        Run(tmp_path, Recipe(model="m"))
    with pytest.raises(RunFolderError, match="no run folder"):
        Run(tmp_path)

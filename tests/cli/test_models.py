"""Models and anchors as people have them: in subfolders, at revisions, as variants, in one file; also resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.cli.shell import here
from tests.realignment import loras
from tests.realignment.hub import connected, serving
from tests.realignment.original_names import original_pipeline
from tests.runs.small_runs import stamps
from tests.zoo import ZOO

from deradiff.errors import RunFolderError
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

SMALL = ("--prompt", "a red one", "--lams", "0,1", "--seeds", "1", "--steps", "2", "--height", "32", "--width", "32")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERADIFF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a pipeline of two variants, and two LoRAs of it, beside others."""
    pipe: Any = ZOO["sd"].build()
    pipe.save_pretrained(tmp_path / "models" / "inner" / "sd")
    for seed, name in enumerate(("one", "two")):
        file = loras.save(pipe, "unet", tmp_path / name, seed=seed) / "pytorch_lora_weights.safetensors"
        (tmp_path / "models" / "loras").mkdir(exist_ok=True)
        file.rename(tmp_path / "models" / "loras" / f"{name}.safetensors")
    pipe.to(dtype=torch.bfloat16).save_pretrained(tmp_path / "models" / "inner" / "sd", variant="bf16")
    return tmp_path / "models"


def recipe_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())["recipe"]


def test_a_run_remembers_where_its_models_lie(models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lies = ("--model", str(models), "--subfolder", "inner/sd", "--variant", "bf16", "--anchor", str(models))
    lies += ("--anchor-subfolder", "loras", "--anchor-weight-name", "two.safetensors", "--dtype", "auto")
    here("sweep", *lies, *SMALL, "--out", str(run))
    recipe = recipe_of(run)
    assert (recipe["model_variant"], recipe["anchor_weight_name"]) == ("bf16", "two.safetensors")
    assert recipe["dtype"] == "bfloat16"  # and not auto, which may be another one tomorrow
    first = stamps(run)
    here("sweep", "--out", str(run), "--lams", "0,0.5,1")  # takes the run's
    here("sweep", *lies, *SMALL, "--out", str(run))
    after = stamps(run)
    assert len(after) == 3
    assert first.items() <= after.items()
    for other in (("--anchor-weight-name", "one.safetensors"), ("--dtype", "float32")):
        words = here("sweep", "--out", str(run), *other, code=2).stderr
        assert "another recipe" in words
    other = "unet/diffusion_pytorch_model.safetensors"  # of the variant that isn't taken
    (models / "inner" / "sd" / other).unlink()
    assert "complete" in here("sweep", "--out", str(run)).stdout
    Run(run).sample(lams=[0.75], progress=lambda count: None)
    taken = models / "inner" / "sd" / "unet" / "diffusion_pytorch_model.bf16.safetensors"
    shutil.copy(models / "inner" / "sd" / "vae" / "diffusion_pytorch_model.safetensors", taken)
    with pytest.raises(RunFolderError, match=r"the model was .* with other weights"):
        Run(run).sample(lams=[0.25], progress=lambda count: None)


def test_a_variant_alone_needs_no_name_and_generate_and_python_take_locations(models: Path, tmp_path: Path) -> None:
    model, anchor = models / "inner" / "sd", models / "loras"
    for plain in model.rglob("*.safetensors"):
        if ".bf16" not in plain.name:
            plain.unlink()
    out = tmp_path / "x.png"
    words = ("--anchor-weight-name", "one.safetensors", "--steps", "2", "--height", "32", "--width", "32")
    here("generate", "a red one", "--model", str(model), "--anchor", str(anchor), *words, "--out", str(out))
    assert out.is_file()
    recipe = Recipe(
        model=str(models), model_subfolder="inner/sd", anchor=str(models), anchor_subfolder="loras",
        anchor_weight_name="one.safetensors", steps=2, height=32, width=32, dtype="auto",
    )  # fmt: skip
    run = Run(tmp_path / "run", recipe)
    assert run.recipe.dtype == "bfloat16"
    run.sample(["a red one"], seeds=[7, 3], lams=[1], progress=lambda count: None)
    assert run.is_complete()


def test_a_checkpoint_in_one_file_is_swept(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "tuned.safetensors"
    save_file(original_pipeline(ZOO["sd"].build()), file)
    shutil.copytree(models / "inner" / "sd", tmp_path / "tuned", ignore=shutil.ignore_patterns("*.safetensors"))
    run = tmp_path / "run"
    words = ("--model", str(file), "--anchor", str(models / "loras" / "one.safetensors"), "--out", str(run))
    here("sweep", *words, *SMALL)
    config = tmp_path / "tuned" / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    assert "with other weights" in here("sweep", "--out", str(run), "--lams", "2", code=2).stderr


def test_a_lora_of_another_base_is_a_sentence(models: Path, tmp_path: Path) -> None:
    ZOO["sdxl"].build().save_pretrained(tmp_path / "sdxl")
    for anchor in ("embedded:warmth-beta0.2-seed0", str(models / "loras" / "one.safetensors")):
        words = ("--model", str(tmp_path / "sdxl"), "--anchor", anchor, *SMALL, "--out", str(tmp_path / "run"))
        error = here("sweep", *words, code=2).stderr
        assert len(error.strip().splitlines()) == 1
        assert "it was made for another base model" in error
        assert not (tmp_path / "run").exists()


def test_seeds_are_a_count_or_a_list(tmp_path: Path) -> None:
    words = ("--prompt", "a red one", "--lams", "0", "--list", "--out", str(tmp_path / "run"))
    for text, seeds in (("3", [0, 1, 2]), ("0,7,42", [0, 7, 42]), ("7,", [7])):
        lines = here("sweep", *words, "--seeds", text).stdout.splitlines()
        assert [json.loads(line)["seed"] for line in lines] == seeds


def test_repositories_of_the_hub_are_swept_at_a_revision(models: Path, tmp_path: Path) -> None:
    words = ["sweep", "--model", "a/model", "--anchor", "a/lora", "--revision", "v2", "--anchor-revision", "v2"]
    words += ["--anchor-weight-name", "two.safetensors", *SMALL, "--variant", "bf16", "--out"]
    known = [*words, str(tmp_path / "run"), "--dtype", "auto"]
    other = ["v9" if word == "v2" else word for word in [*words, str(tmp_path / "other"), "--dtype", "auto"]]
    repositories = {"a/model": models / "inner" / "sd", "a/lora": models / "loras"}
    with serving(repositories) as (address, fetched), connected(address, tmp_path / "hub"):
        assert here(*words, str(tmp_path / "unknown")).stdout.startswith("2 images to sample")
        # its hash is known by now, and wasn't when it was begun
        more = here("sweep", "--lams", "0.5", "--out", str(tmp_path / "unknown"))
        assert more.stdout.startswith("1 images to sample")
        assert recipe_of(tmp_path / "unknown")["model_hash"] is None
        assert here(*known).stdout.startswith("2 images to sample")
        assert here(*known).stdout.startswith("complete")
        assert "the model 'a/model' has no revision 'v9' on the hub" in here(*other, code=2).stderr
    recipe = recipe_of(tmp_path / "run")
    assert (recipe["model_revision"], recipe["anchor_revision"], recipe["dtype"]) == ("v2", "v2", "bfloat16")
    assert recipe["model_hash"] is not None
    assert "two.safetensors" in fetched
    assert "one.safetensors" not in fetched
    assert not [name for name in fetched if name.endswith("model.safetensors")]  # the plain ones

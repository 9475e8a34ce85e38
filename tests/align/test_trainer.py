"""Training on tiny pipelines in the real classes: what is learnt, what is written, and that it goes on exactly."""

import json
import math
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from tests import processes
from tests.runs.small_runs import contents
from torch import Tensor

import deradiff
from deradiff import testbed
from deradiff.align import Step, align
from deradiff.align.checkpoint import lock_folder
from deradiff.align.trainer import check_training
from deradiff.anchor.source import card_of
from deradiff.errors import AlignError, DeradiffError

from .trainings import PROMPTS, pipeline, preferences, settings

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Accelerate keeps a process's precision for good."""
    AcceleratorState._reset_state(reset_partial_state=True)


def trained(folder: Path, name: str = "sd", *, pipe: Any = None, stop: int | None = None, **changes: Any) -> list[Step]:
    """Train into a folder; ``stop`` raises after so many steps, as a killed process would."""
    steps: list[Step] = []

    def advance(step: Step) -> None:
        steps.append(step)
        if step.step == stop:
            raise KeyboardInterrupt

    given = {"card": {"reference": name}, "save_every": 2, "advance": advance}
    pairs = preferences(folder.parent / "pairs")
    align(pipe or pipeline(name), pairs, folder, settings(**changes), **given)
    return steps


def image(pipe: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe("a red circle", num_inference_steps=3, output_type="pt", generator=generator).images


@pytest.mark.parametrize("name", ["sd", "sd_v", "sdxl"])
def test_the_policy_begins_as_the_reference(tmp_path: Path, name: str) -> None:
    steps = trained(tmp_path / "anchor", name)
    assert steps[0].loss == pytest.approx(math.log(2))
    assert steps[-1].loss != steps[0].loss


def test_red_images_are_preferred_to_blue_ones_after_a_while(tmp_path: Path) -> None:
    changes = {
        "beta": 0.01,
        "steps": 30,
        "learning_rate": 3e-3,
        "train_batch_size": 6,
        "height": 64,
        "width": 64,
        "rank": 4,
    }
    steps = trained(tmp_path / "anchor", pipe=testbed.load_pipeline(), **changes)
    assert sum(step.loss for step in steps[-10:]) / 10 < 0.9 * math.log(2)
    assert sum(step.accuracy for step in steps[-10:]) / 10 > 0.8
    redness = []
    for lam in (0.0, 1.0):
        pipe: Any = testbed.load_pipeline()
        with deradiff.realign(pipe, str(tmp_path / "anchor"), lam=lam):
            generator = torch.Generator().manual_seed(0)
            made = pipe(PROMPTS[1], num_inference_steps=8, guidance_scale=1.0, output_type="pt", generator=generator)
            redness.append(float((made.images[:, 0] - made.images[:, 2]).mean()))
    assert redness[1] > redness[0] + 0.005


@pytest.mark.parametrize("full", [False, True])
def test_the_anchor_loads_in_plain_diffusers_and_says_what_it_is(tmp_path: Path, full: bool) -> None:
    folder = tmp_path / "anchor"
    trained(folder, full=full)
    plain, taught = pipeline(), pipeline()
    if full:
        taught.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    else:
        taught.load_lora_weights(folder)
    before, after = image(plain), image(taught)
    assert not torch.allclose(before, after, atol=1e-4)
    (tmp_path / "plain").touch()
    written = [path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts]
    assert {path.stat().st_mode for path in written} == {(tmp_path / "plain").stat().st_mode}  # who may read it
    card = card_of(folder)
    assert (card["beta"], card["seed"], card["steps"], card["reference"]) == (0.01, 0, 6, "sd")
    assert card["beta_convention"]["reduction"] == "sum"
    assert card["data"] == preferences(tmp_path / "pairs").fingerprint
    with deradiff.realign(plain, str(folder), lam=1.0):
        assert torch.allclose(image(plain), after, atol=1e-4)
    assert torch.equal(image(plain), before)


def test_an_anchor_in_kohyas_layout_is_the_same_anchor(tmp_path: Path) -> None:
    anchors = [tmp_path / "one", tmp_path / "two"]
    for folder, format in zip(anchors, ("diffusers", "kohya"), strict=True):
        align(pipeline(), preferences(tmp_path / "pairs"), folder, settings(), card={}, format=format)
    assert {path.name for path in anchors[1].glob("*.safetensors")} == {"two.safetensors"}
    with safe_open(anchors[1] / "two.safetensors", "pt") as file:
        assert all(name.startswith("lora_unet_") for name in file.keys())  # noqa: SIM118
    assert card_of(anchors[0]) == card_of(anchors[1])
    images: list[Tensor] = []
    for folder in anchors:
        pipe = pipeline()
        with deradiff.realign(pipe, str(folder), lam=1.0):
            images.append(image(pipe))
    assert torch.equal(*images)
    align(pipeline(), preferences(tmp_path / "pairs"), anchors[0], settings(), card={}, format="kohya")
    assert {path.name for path in anchors[0].glob("*.safetensors")} == {"one.safetensors"}
    with pytest.raises(AlignError, match="the format kohya is of LoRAs"):
        align(pipeline(), preferences(tmp_path / "pairs"), tmp_path / "x", settings(full=True), card={}, format="kohya")
    with pytest.raises(AlignError, match="expected one of diffusers, kohya"):
        align(pipeline(), preferences(tmp_path / "pairs"), tmp_path / "x", settings(), card={}, format="peft")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("changes", [{}, {"ema": 0.5}, {"full": True}], ids=["lora", "ema", "full"])
def test_a_training_that_was_stopped_takes_the_same_steps(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trained(whole, **changes)
    with pytest.raises(KeyboardInterrupt):
        trained(cut, stop=5, **changes)  # after the checkpoint of step 4
    assert len((cut / "log.jsonl").read_text().splitlines()) == 5
    again = trained(cut, **changes)
    assert [step.step for step in again] == [5, 6]
    assert (cut / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    name = "unet/diffusion_pytorch_model.safetensors" if changes.get("full") else WEIGHTS
    first, second = load_file(whole / name), load_file(cut / name)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_parts_of_a_step_add_up_to_it(tmp_path: Path) -> None:
    whole, parts = trained(tmp_path / "whole"), trained(tmp_path / "parts", gradient_accumulation_steps=2)
    for one, other in zip(whole, parts, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)


def test_an_average_of_the_weights_lags_behind_them(tmp_path: Path) -> None:
    trained(tmp_path / "last")
    trained(tmp_path / "average", ema=0.9)
    last, average = (load_file(tmp_path / name / WEIGHTS) for name in ("last", "average"))
    grown = [key for key in last if "lora_B" in key]
    assert grown
    assert sum(average[key].norm() for key in grown) < sum(last[key].norm() for key in grown)


def test_a_smaller_beta_moves_further_from_the_reference(tmp_path: Path) -> None:
    moved = []
    for beta in (1e-5, 3e-3):
        trained(tmp_path / str(beta), beta=beta, loss="ipo", steps=12, learning_rate=1e-3)
        weights = load_file(tmp_path / str(beta) / WEIGHTS)
        moved.append(float(sum(weights[key].float().norm() ** 2 for key in weights if "lora_B" in key)))
    assert moved[0] > moved[1]


def test_another_beta_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "anchor/writing").mkdir(parents=True)  # someone else's
    trained(tmp_path / "anchor")
    assert (tmp_path / "anchor/writing").exists()
    kept = (tmp_path / "anchor" / WEIGHTS).read_bytes()
    with pytest.raises(AlignError, match=r"beta was 0\.01, now 0\.02"):
        trained(tmp_path / "anchor", beta=0.02)
    others = preferences(tmp_path / "others", pairs=5)
    with pytest.raises(AlignError, match=r"settings \(other preferences\)"):
        align(pipeline(), others, tmp_path / "anchor", settings(), card={"reference": "sd"})
    assert (tmp_path / "anchor" / WEIGHTS).read_bytes() == kept


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"beta": -1.0}, "beta"),
        ({"train_batch_size": 3, "gradient_accumulation_steps": 2}, "multiple"),
        ({"convention": "dpo"}, "sdxl-script"),
        ({"height": 32}, "both or neither"),
        ({"target_modules": ("no_such_layer",)}, "no_such_layer"),
        ({"learning_rate": 1e30}, "not a number|the loss is nan|the loss is inf"),
    ],
)
def test_settings_that_cannot_work_are_reported(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DeradiffError, match=told):
        trained(tmp_path / "anchor", **changes)
    assert not (tmp_path / "anchor" / WEIGHTS).exists()


def test_sharded_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", property(lambda accelerator: DistributedType.FSDP))
    with pytest.raises(AlignError, match=r"configured for FSDP.*expected whole weights in each \(DDP"):
        trained(tmp_path)
    assert not (tmp_path / "log.jsonl").exists()


def test_the_log_has_a_line_a_step(tmp_path: Path) -> None:
    steps = trained(tmp_path / "anchor")
    logged = [json.loads(line) for line in (tmp_path / "anchor" / "log.jsonl").read_text().splitlines()]
    assert logged == [vars(step) for step in steps]
    rates = [step.learning_rate for step in steps]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(("tracker", "told"), [("nonsense", "nonsense"), ("comet_ml", "pip install comet_ml")])
def test_trackers_that_cannot_be_had_are_reported(tmp_path: Path, tracker: str, told: str) -> None:
    pairs = preferences(tmp_path / "pairs")
    with pytest.raises(AlignError, match=told):
        align(pipeline(), pairs, tmp_path / "anchor", settings(), card={}, tracker=tracker)


def test_bf16_trains(tmp_path: Path) -> None:
    steps = trained(tmp_path / "anchor", mixed_precision="bf16")
    assert steps[0].loss == pytest.approx(math.log(2), rel=1e-3)
    weights = load_file(tmp_path / "anchor" / WEIGHTS)
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in weights.values())


def train_on_full_disk(folder: Path) -> str:
    """The error where no file may be larger than 20 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1))
    with pytest.raises(AlignError) as error:
        trained(folder)
    return str(error.value)


def test_a_disk_that_refuses_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    """The largest file that may be written shrinks: too small for the checkpoint, then for the anchor."""
    trained(tmp_path / "whole")
    error = processes.call(train_on_full_disk, tmp_path / "cut")
    assert error.startswith(f"can't write {tmp_path / 'cut' / 'checkpoint.pt'}"), error
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()
    trained(tmp_path / "cut")
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_is_in_the_way_is_refused_and_kept(tmp_path: Path) -> None:
    """A full training into the folder of a pipeline would overwrite its weights."""
    pipeline().save_pretrained(tmp_path / "model")
    before = (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").read_bytes()
    (tmp_path / "model/writing").mkdir()
    with pytest.raises(AlignError, match=r"holds model_index\.json, which this training didn't make"):
        trained(tmp_path / "model", full=True)
    assert (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").read_bytes() == before
    assert (tmp_path / "model/writing").exists()
    shutil.copytree(testbed.anchor_path(), tmp_path / "another")
    before = contents(tmp_path / "another")
    with pytest.raises(AlignError, match="holds weights that this training didn't make"):
        trained(tmp_path / "another")
    assert contents(tmp_path / "another") == before


def test_a_damaged_checkpoint_is_reported_and_a_lost_log_hinders_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "anchor", stop=4)
    (tmp_path / "anchor/log.jsonl").unlink()
    assert [step.step for step in trained(tmp_path / "anchor")] == [5, 6]
    path = tmp_path / "anchor/checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AlignError, match=r"checkpoint\.pt is damaged"):
        trained(tmp_path / "anchor")


def test_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "anchor"), pytest.raises(AlignError, match="another process trains in"):
        trained(tmp_path / "anchor")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"beta": 0.02}, r"beta was 0\.01, now 0\.02"),
        ({"target_modules": ("nope",)}, "no LoRA on the layers nope"),
        ({"train_batch_size": 6, "gradient_accumulation_steps": 6}, "train_batch_size was 4, now 6"),
        ({"component": "nope"}, "nope"),
    ],
)
def test_what_training_would_refuse_is_reported_before(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    trained(tmp_path / "anchor")
    card = {"reference": "sd"}
    check_training(pipeline(), tmp_path / "anchor", settings(), card=card)
    with pytest.raises(DeradiffError, match=told):
        check_training(pipeline(), tmp_path / "anchor", settings(**changes), card=card)
    (tmp_path / "file").touch()
    with pytest.raises(AlignError, match="can't write"):
        check_training(pipeline(), tmp_path / "file", settings(), card=card)

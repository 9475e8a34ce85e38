"""What holds for every scorer: batches, order, dtypes, what is missing and what doesn't fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.rewards.published import NAMES, loaded

from deradiff.errors import RewardError
from deradiff.rewards import find_registered, load_reward
from deradiff.rewards.scorer import Dtype

PROMPTS = ["a red circle", "a blue square", "a circle on the left of a square", "a"]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 45, 31, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_batches_and_order_change_nothing(name: str, folders: dict[str, Path], images: torch.Tensor) -> None:
    scorer = loaded(name, folders[name])
    whole = scorer(images, PROMPTS)
    assert whole.dtype == torch.float32
    assert whole.shape == (4,)
    assert len(set(whole.tolist())) > 1
    scorer.batch_size = 3
    torch.testing.assert_close(scorer(images, PROMPTS), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scorer(images.flip(0), PROMPTS[::-1]).flip(0), whole, rtol=1e-5, atol=1e-5)
    assert scorer(images[:0], []).shape == (0,)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name: str, dtype: Dtype, folders: dict[str, Path], images: torch.Tensor) -> None:
    whole, half = (loaded(name, folders[name], kind)(images, PROMPTS) for kind in ("float32", dtype))
    assert half.dtype == torch.float32
    assert not torch.equal(whole, half)
    tolerance = float(whole.abs().max()) * {"float16": 0.05, "bfloat16": 0.3}[dtype]
    torch.testing.assert_close(half, whole, rtol=0, atol=tolerance)


def test_the_temperature_is_never_rounded(folders: dict[str, Path], images: torch.Tensor) -> None:
    scorer = loaded("pickscore", folders["pickscore"], "bfloat16")
    scorer(images, PROMPTS)
    model = vars(scorer)["model"]
    assert model.visual_projection.weight.dtype == torch.bfloat16
    assert model.logit_scale.item() == load_file(folders["pickscore"] / "model.safetensors")["logit_scale"].item()


@pytest.mark.parametrize("name", NAMES)
def test_without_the_hub_each_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))  # both are read when it is imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    file, repo = next(iter(find_registered(name).published.items()))
    with pytest.raises(RewardError, match="HF_HOME") as told:
        load_reward(name)
    assert f"the file {file} of the hub's {repo} can't be downloaded" in str(told.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_lacks_a_file(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    published = find_registered(name).published
    for lacking, repo in published.items():
        folder = tmp_path / lacking
        folder.mkdir()
        for file in set(published) - {lacking}:
            (folder / file).symlink_to(folders[name] / file)
        with pytest.raises(RewardError) as told:
            loaded(name, folder)
        assert str(told.value).startswith(f"{folder} lacks the file {lacking}; copy it there from the hub's {repo}")


@pytest.mark.parametrize("name", NAMES)
def test_torn_weights(name: str, folders: dict[str, Path], tmp_path: Path, images: torch.Tensor) -> None:
    published = list(find_registered(name).published)
    for file in published[1:]:
        (tmp_path / file).symlink_to(folders[name] / file)
    (tmp_path / published[0]).write_bytes(b"torn")
    scorer = loaded(name, tmp_path)
    with pytest.raises(RewardError, match=r"can't be read"):
        scorer(images, PROMPTS)


def test_the_file_of_weights_as_source(folders: dict[str, Path], tmp_path: Path, images: torch.Tensor) -> None:
    (tmp_path / "tokenizer.json").symlink_to(folders["hps"] / "tokenizer.json")
    (tmp_path / "mine.pt").symlink_to(folders["hps"] / "HPS_v2.1_compressed.pt")
    expected = loaded("hps", folders["hps"])(images, PROMPTS)
    assert torch.equal(loaded("hps", tmp_path / "mine.pt")(images, PROMPTS), expected)


def test_weights_that_do_not_fit(folders: dict[str, Path], tmp_path: Path, images: torch.Tensor) -> None:
    for file in folders["clip"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    whole = load_file(tmp_path / "model.safetensors")
    name = "visual_projection.weight"
    for wrong in ({}, {name: whole[name][:, 1:].contiguous()}, {name: whole[name], "more": whole[name] + 1}):
        (tmp_path / "model.safetensors").unlink()
        save_file({key: value for key, value in whole.items() if key != name} | wrong, tmp_path / "model.safetensors")
        with pytest.raises(RewardError, match="don't fit a CLIPModel"):
            loaded("clip", tmp_path)(images, PROMPTS)
    torch.save({"model": {}}, folder_of(tmp_path, folders["hps"]) / "HPS_v2.1_compressed.pt")
    with pytest.raises(RewardError, match="no CLIP under 'state_dict'"):
        loaded("hps", tmp_path)(images, PROMPTS)
    for name, file in (("aesthetic", "sac+logos+ava1-l14-linearMSE.pth"), ("image_reward", "ImageReward.pt")):
        torch.save({"other": torch.zeros(1)}, folder_of(tmp_path, folders[name]) / file)
        with pytest.raises(RewardError, match=r"have no .*; give the published file"):
            loaded(name, tmp_path)(images, PROMPTS)


def folder_of(folder: Path, other: Path) -> Path:
    """The folder, emptied, with links to what the other holds but its weights of torch's format."""
    for file in folder.iterdir():
        file.unlink()
    for file in other.iterdir():
        if file.suffix not in (".pt", ".pth"):
            (folder / file.name).symlink_to(file)
    return folder


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this ran",))


def test_weights_that_would_run_code_are_refused(
    folders: dict[str, Path], tmp_path: Path, images: torch.Tensor
) -> None:
    torch.save({"state_dict": Code()}, folder_of(tmp_path, folders["hps"]) / "HPS_v2.1_compressed.pt")
    with pytest.raises(RewardError, match="can't be read"):
        loaded("hps", tmp_path)(images, PROMPTS)


def test_shapes_are_checked(folders: dict[str, Path], images: torch.Tensor) -> None:
    scorer = loaded("clip", folders["clip"])
    for wrong in (images[:3], images[:, :1], images[0]):
        with pytest.raises(RewardError, match=r"expected \(N, 3, H, W\) and N"):
            scorer(wrong, PROMPTS)
    with pytest.raises(RewardError, match="batch_size is 0"):
        find_registered("clip")(source=folders["clip"], batch_size=0)

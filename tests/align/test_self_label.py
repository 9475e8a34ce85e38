"""Self-labelled pairs: the reference's own samples, on disk, under the reward's order and odds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.zoo import ZOO
from torch import Tensor

from deradiff import testbed
from deradiff.align.pairs import Pairs, read_pairs
from deradiff.align.self_label import self_label
from deradiff.errors import AlignError, RewardError
from deradiff.sampling import noise_seed, to_pixels

PROMPTS = ["a red circle", "a blue square"]


def brightness(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    assert len(pixels) == len(prompts)
    assert len(set(prompts)) == 1
    return 100 * pixels.mean((1, 2, 3))


def tiny() -> Any:
    pipe: Any = ZOO["sd"].build()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def label(folder: Path, pipe: Any = None, **changes: Any) -> Pairs:
    given = {"reward": brightness, "prompts": PROMPTS, "images": 3, "steps": 2}
    return self_label(pipe or tiny(), folder=folder, **{**given, **changes})


def stamps(folder: Path) -> dict[str, int]:
    """When each sample was written."""
    return {f.name: f.stat().st_mtime_ns for part in ("images", "latents") for f in (folder / part).iterdir()}


def test_every_two_images_of_a_prompt_are_a_pair_under_bradley_terry(tmp_path: Path) -> None:
    counted = []
    data = label(tmp_path, advance=counted.append)
    assert counted == [3, 3]
    for prompt in PROMPTS:
        own = [pair for pair in data.pairs if pair.prompt == prompt]
        assert len({frozenset((pair.chosen, pair.rejected)) for pair in own}) == len(own) == 3
        assert len({key for pair in own for key in (pair.chosen, pair.rejected)}) == 3
        for pair in own:
            pixels = torch.stack([to_pixels(data.image(key)) for key in (pair.chosen, pair.rejected)])
            better, worse = brightness(pixels, [prompt] * 2).double().tolist()
            assert better > worse
            assert pair.probability == pytest.approx(1 / (1 + math.exp(worse - better)), abs=1e-6)
    assert read_pairs(tmp_path).fingerprint == data.fingerprint


def test_samples_are_the_plain_pipeline_s_and_latents_what_it_returns(tmp_path: Path) -> None:
    data, pipe = label(tmp_path, prompts=PROMPTS[:1], seed=5, guidance=2.0), tiny()

    def again(output_type: str) -> Any:
        seeds = [noise_seed(f"{PROMPTS[0]}\n{index}", 5) for index in range(3)]
        return pipe(
            PROMPTS[0],
            num_images_per_prompt=3,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=2,
            guidance_scale=2.0,
            output_type=output_type,
        ).images

    kept = {data.image(key).tobytes(): data.latent(key) for pair in data.pairs for key in (pair.chosen, pair.rejected)}
    for image, latent in zip(again("pil"), again("latent"), strict=True):
        found = kept[image.tobytes()]
        assert found is not None
        assert torch.equal(found, latent)
    assert len(kept) == 3


def test_images_of_people_have_no_latent(tmp_path: Path) -> None:
    for name, grey in (("a.png", 1), ("b.png", 2)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / name)
    (tmp_path / "p.csv").write_text("prompt,chosen,rejected\nx,a.png,b.png\n")
    data = read_pairs(tmp_path)
    assert data.latent(data.pairs[0].chosen) is None


def test_a_stopped_call_goes_on_where_it_was(tmp_path: Path) -> None:
    def stop(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        if prompts[0] == PROMPTS[1]:
            raise KeyboardInterrupt
        return brightness(pixels, prompts)

    with pytest.raises(KeyboardInterrupt):
        label(tmp_path / "stopped", reward=stop)
    assert not (tmp_path / "stopped" / "pairs.jsonl").exists()
    torn = sorted((tmp_path / "stopped" / "images").iterdir())[-1]
    torn.unlink()  # as if it had been stopped in the middle of a prompt
    before = stamps(tmp_path / "stopped")
    data = label(tmp_path / "stopped")
    after = stamps(tmp_path / "stopped")
    assert sum(after[name] == stamp for name, stamp in before.items()) == 6  # of the whole prompt: images and latents
    assert data.fingerprint == label(tmp_path / "straight").fingerprint


def test_other_settings_and_pipelines_share_no_samples(tmp_path: Path) -> None:
    other = tiny()
    other.scheduler = type(other.scheduler).from_config(other.scheduler.config, timestep_spacing="trailing")
    label(tmp_path)
    others = [{}, {"seed": 1}, {"steps": 3}, {"guidance": 1.0}, {"size": (32, 48)}, {"pipe": other}]
    for place, changes in enumerate(others):
        before = stamps(tmp_path)
        if place:  # an anchor may have learnt from these
            with pytest.raises(AlignError, match=r"pairs\.jsonl holds preferences of other prompts, samples or scores"):
                label(tmp_path, **changes)
            (tmp_path / "pairs.jsonl").unlink()
        label(tmp_path, **changes)
        after = stamps(tmp_path)
        assert before.items() <= after.items()
        assert len(after) - len(before) == (12 if place else 0)


def test_equal_rewards_are_counted(tmp_path: Path) -> None:
    def two_of_three_alike(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return (pixels.mean((1, 2, 3)) >= pixels.mean((1, 2, 3)).max()).double()

    data = label(tmp_path / "some", reward=two_of_three_alike)
    assert data.skipped == {"tie": 2}
    assert [pair.probability for pair in data.pairs] == [pytest.approx(1 / (1 + math.exp(-1)))] * 4
    with pytest.raises(AlignError, match=r"\(6 tie\)"):
        label(tmp_path / "none", reward=lambda pixels, prompts: torch.zeros(len(pixels)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rewards_that_are_no_finite_number_an_image_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(RewardError, match=rf"'mine' returned \[0.0, {value}, 1.0\] for 3 images"):
        label(tmp_path, reward=lambda pixels, prompts: torch.tensor([0.0, value, 1.0]), name="mine")
    with pytest.raises(RewardError, match=r"shape \(2,\) for 3 images"):
        label(tmp_path, reward=lambda pixels, prompts: torch.zeros(2))
    assert not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize("changes", [{"prompts": []}, {"images": 1}])
def test_too_little_to_compare_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(AlignError, match="expected at least 1 prompt and 2 images"):
        label(tmp_path, **changes)


def test_on_the_embedded_pipeline_the_warmer_image_is_chosen(tmp_path: Path) -> None:
    pipe = testbed.load_pipeline()
    prompts = testbed.prompts(2, seed=3)
    data = label(tmp_path, pipe, reward=testbed.warmth, prompts=prompts, steps=20, guidance=1.0)
    assert len(data.pairs) + sum(data.skipped.values()) == 6
    for pair in data.pairs:
        chosen, rejected = (to_pixels(data.image(key))[None] for key in (pair.chosen, pair.rejected))
        gain = testbed.warmth(chosen, [""]) - testbed.warmth(rejected, [""])
        assert pair.probability == pytest.approx(torch.sigmoid(gain).item(), abs=1e-6)
        assert pair.probability > 0.5
        latent = data.latent(pair.chosen)
        assert latent is not None
        with torch.no_grad():
            decoded = pipe.vae.decode(latent[None] / pipe.vae.config["scaling_factor"]).sample[0]  # pyright: ignore
        assert (decoded / 2 + 0.5).clamp(0, 1).sub(chosen[0]).abs().max() < 0.01


def test_samples_have_the_size_that_is_asked_for(tmp_path: Path) -> None:
    data = label(tmp_path, size=(32, 48))
    assert {data.image(pair.chosen).size for pair in data.pairs} == {(48, 32)}

"""Latents and conditions made once, found again, and held within bounds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from deradiff import testbed
from deradiff.align import cache
from deradiff.align.cache import Cache, encode_image
from deradiff.errors import AlignError
from deradiff.sampling import to_pixels

from .trainings import PROMPTS, SIDE, pipeline, preferences, settings


def filled(tmp_path: Path, pipe: Any) -> Cache:
    made = Cache(tmp_path / "cache", pipe, pipe.unet, settings())
    made.fill(preferences(tmp_path / "pairs"))
    return made


def test_what_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline()
    first = filled(tmp_path, pipe)
    for name in ("encode_image", "capture_inputs"):
        monkeypatch.setattr(cache, name, None)  # would fail if called
    again = filled(tmp_path, pipe)
    for pair in preferences(tmp_path / "pairs").pairs:
        assert torch.equal(first.latent(pair.chosen), again.latent(pair.chosen))
        assert first.inputs(pair.prompt).batch_key == again.inputs(pair.prompt).batch_key


def test_rows_of_a_condition_are_stored_once(tmp_path: Path) -> None:
    made = filled(tmp_path, pipeline())
    states = made.inputs(PROMPTS[0]).kwargs["encoder_hidden_states"]
    assert len(states) == 3
    assert states.untyped_storage().nbytes() == states[0].numel() * states.element_size()


def test_memory_is_bounded_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = filled(tmp_path, pipeline())
    pairs = preferences(tmp_path / "pairs").pairs
    before = [made.latent(pair.chosen) for pair in pairs]
    sizes = [path.stat().st_size for path in (tmp_path / "cache" / "latents").iterdir()]
    monkeypatch.setattr(cache, "_MAX_CACHED_BYTES", 2 * max(sizes))
    made.cached.clear()
    made.cached_bytes = 0
    for _ in range(3):
        for pair, latent in zip(pairs, before, strict=True):
            assert torch.equal(made.latent(pair.chosen), latent)
            assert len(made.cached) <= 2
    assert made.cached_bytes == sum(path.stat().st_size for path in made.cached)


def test_encoded_images_decode_to_themselves(tmp_path: Path) -> None:
    pipe: Any = testbed.load_pipeline()
    with torch.no_grad():
        made = pipe(testbed.prompts(1)[0], num_inference_steps=10, guidance_scale=1.0).images[0]
        latent = encode_image(pipe, made, (8, 8, 8), 64, 64)
        again = pipe.vae.decode(latent[None] / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    assert (again[0].clamp(0, 1) - to_pixels(made)).abs().mean() < 0.02


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_latents_are_scaled_as_the_denoiser_takes_them(tmp_path: Path, name: str) -> None:
    pipe, pairs = pipeline(name), preferences(tmp_path / "pairs")
    vae, image = pipe.vae, pairs.image(pairs.pairs[0].chosen)
    vae.register_to_config(scaling_factor=0.5, shift_factor=0.25 if name == "sd3" else None)
    with torch.no_grad():
        plain = vae.encode(2 * to_pixels(image)[None] - 1).latent_dist.mode()[0]
    latent = encode_image(pipe, image, tuple(plain.shape), SIDE, SIDE)
    torch.testing.assert_close(latent, (plain - (0.25 if name == "sd3" else 0)) * 0.5, atol=1e-5, rtol=1e-4)


def test_latents_of_another_shape_are_refused(tmp_path: Path) -> None:
    image = preferences(tmp_path / "pairs").image(preferences(tmp_path / "pairs").pairs[0].chosen)
    with pytest.raises(AlignError, match="--self-label"):
        encode_image(pipeline(), image, (5, 8, 8), 32, 32)

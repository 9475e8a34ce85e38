"""Preference pairs without people: the reference's own samples, judged by a reward."""

import io
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save as to_safetensors

from deradiff.align.files import put
from deradiff.align.pairs import Pair, Pairs, latent_file, read_pairs, write_pairs
from deradiff.errors import AlignError
from deradiff.rewards import Reward, scores
from deradiff.sampling import final_latents, noise_seed, to_pixels


@torch.no_grad()
def self_label(
    pipe: Any,
    prompts: Sequence[str],
    reward: Reward,
    folder: Path,
    *,
    images: int = 8,
    seed: int = 0,
    steps: int,
    guidance: float | None = None,
    size: tuple[int, int] | None = None,
    name: str = "given",
    advance: Callable[[int], object] = lambda count: None,
) -> Pairs:
    """Sample images of each prompt, and pair them under a Bradley-Terry model: p = sigmoid(r_chosen - r_rejected).

    What an earlier, stopped call with the same pipeline and settings sampled is taken from the folder.  Final latents
    are kept beside the images.

    Args:
        pipe: the reference, with no anchor attached.
        prompts: what to sample.
        reward: scores pixels (N, 3, H, W) in [0, 1] for N prompts, higher is better.
        folder: gets ``pairs.jsonl``, ``images/`` and ``latents/``; :func:`read_pairs` reads it.
        images: of each prompt, at least 2; each two of them are a pair.
        seed: of the noise, with the prompt and the image's index.
        steps: of the sampler.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        size: height and width in pixels; None keeps the pipeline's default.
        name: of the reward, for errors.
        advance: told how many more images are scored.

    Raises:
        AlignError: no prompt, fewer than two images, rewards that are all alike, or a folder of other preferences.
        RewardError: the reward raised, or didn't return a finite number an image.
    """
    if not prompts or images < 2:
        raise AlignError(f"got {len(prompts)} prompts of {images} images; expected a prompt, and two images to compare")
    call: dict[str, Any] = {"num_inference_steps": steps}
    call |= {} if guidance is None else {"guidance_scale": guidance}
    call |= {} if size is None else {"height": size[0], "width": size[1]}
    pairs, files = list[Pair](), dict[str, Path]()
    for prompt in prompts:
        names = [_name(pipe, prompt, seed, index, call) for index in range(images)]
        own = {name: folder / "images" / f"{name}.png" for name in names}
        if not all(file.is_file() for file in own.values()):
            seeds = [
                noise_seed(f"{prompt}\n{index}", seed) for index in range(images)
            ]  # noise that no sweep starts from
            _sample(pipe, prompt, seeds, call, folder, list(own.values()))
        pixels = torch.stack([to_pixels(Image.open(file)) for file in own.values()])
        pairs += _paired(prompt, names, scores(name, reward, pixels, [prompt] * images))
        files |= own
        advance(images)
    write_pairs(folder, pairs, files)
    return read_pairs(folder)


def _name(pipe: Any, prompt: str, seed: int, index: int, call: dict[str, Any]) -> str:
    """What tells a sample from those of other settings, schedulers and models in the same folder."""
    schedule = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
    model = [type(pipe).__name__, pipe.name_or_path, type(pipe.scheduler).__name__, schedule]
    return sha256(json.dumps([model, prompt, seed, index, call], sort_keys=True, default=str).encode()).hexdigest()


def _sample(
    pipe: Any, prompt: str, seeds: Sequence[int], call: dict[str, Any], folder: Path, files: list[Path]
) -> None:
    """All images of a prompt in one call: its rows would not be bit for bit the same in another batch."""
    with final_latents(pipe) as final:
        pictures = pipe(
            prompt=prompt,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            **call,
        ).images
    for picture, latent, file in zip(pictures, final(), files, strict=True):
        content = io.BytesIO()
        picture.save(content, "png")
        key = sha256(content.getvalue()).hexdigest()
        put(latent_file(folder, key), to_safetensors({"latent": latent.cpu().contiguous()}))
        put(file, content.getvalue())  # last, as it tells that the sample is done


def _paired(prompt: str, names: list[str], judged: list[float]) -> list[Pair]:
    """Each two images, the better one chosen; those of equal reward have probability 0.5, so reading skips them."""
    pairs = list[Pair]()
    for two in combinations(zip(judged, names, strict=True), 2):
        (worse, rejected), (better, chosen) = sorted(two)
        pairs.append(Pair(prompt, chosen, rejected, torch.sigmoid(torch.tensor(better - worse).double()).item()))
    return pairs

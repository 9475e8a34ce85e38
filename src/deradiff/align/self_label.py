"""Preference pairs without annotators: samples of the reference, labelled by a reward."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from deradiff.align.pairs import Pair, Pairs, latent_file, read_pairs, write_pairs
from deradiff.errors import AlignError
from deradiff.reading import decode_image, read_whole
from deradiff.rewards import Reward, compute_scores
from deradiff.sampling import final_latents, noise_seed, to_pixels
from deradiff.writing import encode_png, write_whole


@dataclass(frozen=True)
class PromptRequest:
    """The samples that are wanted of a prompt.

    Attributes:
        prompt: text.
        seeds: of the noise, one an image.
        call: further arguments of the pipeline.
    """

    prompt: str
    seeds: tuple[int, ...]
    call: Mapping[str, Any]


@dataclass(frozen=True)
class PromptSamples:
    """The samples of a prompt, as files.

    Attributes:
        images: PNGs.
        latents: final latents, as safetensors under the name ``latent``.
    """

    images: tuple[bytes, ...]
    latents: tuple[bytes, ...]


PromptSampler = Callable[[Iterator[PromptRequest]], Iterable[tuple[PromptRequest, PromptSamples]]]  # in any order


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
    sampler: PromptSampler | None = None,
) -> Pairs:
    """Sample images of each prompt and label every pair of them with p = sigmoid(r_chosen - r_rejected).

    This is the Bradley-Terry model. Images that an interrupted call with the same pipeline and settings left in the
    folder are reused. Final latents are stored beside the images.

    Args:
        pipe: the reference, without an anchor.
        prompts: texts to sample.
        reward: scores pixels ``[batch, 3, height, width]`` in [0, 1] for as many prompts; higher is better.
        folder: receives ``pairs.jsonl``, ``images/`` and ``latents/``; :func:`read_pairs` reads it.
        images: number of images of each prompt, 2 or more; every two of them are a pair.
        seed: of the noise, together with the prompt and the image's index.
        steps: of the sampler.
        guidance: classifier-free guidance scale; None keeps the pipeline's default.
        size: height and width in pixels; None keeps the pipeline's default.
        name: of the reward, for error messages.
        advance: receives the number of images scored since its last call.
        sampler: samples on other pipelines of the same model, such as those of a cluster; None samples on ``pipe``.

    Raises:
        AlignError: no prompt, fewer than two images, equal rewards everywhere, or a folder with other preferences.
        RewardError: the reward failed, or didn't return one finite number for each image.
    """
    if not prompts or images < 2:
        raise AlignError(f"got {len(prompts)} prompts of {images} images; expected at least 1 prompt and 2 images")
    call: dict[str, Any] = {"num_inference_steps": steps}
    call |= {} if guidance is None else {"guidance_scale": guidance}
    call |= {} if size is None else {"height": size[0], "width": size[1]}
    names = {
        prompt: [_sample_name(pipe, prompt, seed, index, call) for index in range(images)]
        for prompt in dict.fromkeys(prompts)
    }
    files = {name: folder / "images" / f"{name}.png" for own in names.values() for name in own}
    missing = {prompt for prompt, own in names.items() if not all(files[name].is_file() for name in own)}
    # noise that no sweep starts from
    wanted = (
        PromptRequest(prompt, tuple(noise_seed(f"{prompt}\n{index}", seed) for index in range(images)), call)
        for prompt in names
        if prompt in missing
    )
    scores = dict[str, list[float]]()

    def judge(prompt: str) -> None:
        pixels = torch.stack([_read_pixels(files[name]) for name in names[prompt]])
        scores[prompt] = compute_scores(name, reward, pixels, [prompt] * images)
        advance(images)

    for prompt in names:
        if prompt not in missing:
            judge(prompt)
    sampled = ((request, sample_prompt(pipe, request)) for request in wanted) if sampler is None else sampler(wanted)
    for request, samples in sampled:
        _write(samples, folder, [files[name] for name in names[request.prompt]])
        judge(request.prompt)
    pairs = [pair for prompt in prompts for pair in _make_pairs(prompt, names[prompt], scores[prompt])]
    write_pairs(folder, pairs, files)
    return read_pairs(folder)


def _read_pixels(file: Path) -> torch.Tensor:
    return to_pixels(decode_image(read_whole(file, "the sample", AlignError), f"the sample {file}", AlignError))


def _sample_name(pipe: Any, prompt: str, seed: int, index: int, call: dict[str, Any]) -> str:
    """A hash that distinguishes samples of other settings, schedulers and models in the same folder."""
    schedule = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
    model = [type(pipe).__name__, pipe.name_or_path, type(pipe.scheduler).__name__, schedule]
    return sha256(json.dumps([model, prompt, seed, index, call], sort_keys=True, default=str).encode()).hexdigest()


@torch.no_grad()
def sample_prompt(pipe: Any, request: PromptRequest) -> PromptSamples:
    """Sample all images of a prompt in one call: another batch would change their rounding."""
    with final_latents(pipe) as final:
        images = pipe(
            prompt=request.prompt,
            num_images_per_prompt=len(request.seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in request.seeds],
            **request.call,
        ).images
    return PromptSamples(
        tuple(encode_png(image) for image in images),
        tuple(to_safetensors({"latent": latent.cpu().contiguous()}) for latent in final()),
    )


def _write(samples: PromptSamples, folder: Path, files: Sequence[Path]) -> None:
    for image, latent, file in zip(samples.images, samples.latents, files, strict=True):
        write_whole(latent_file(folder, sha256(image).hexdigest()), latent, AlignError)
        write_whole(file, image, AlignError)  # last: the image marks the sample as complete


def _make_pairs(prompt: str, names: list[str], rewards: list[float]) -> list[Pair]:
    """Every two images, the better one chosen; `read_pairs` skips those of equal reward, whose probability is 0.5."""
    pairs = list[Pair]()
    for two in combinations(zip(rewards, names, strict=True), 2):
        (worse, rejected), (better, chosen) = sorted(two)
        pairs.append(Pair(prompt, chosen, rejected, torch.sigmoid(torch.tensor(better - worse).double()).item()))
    return pairs

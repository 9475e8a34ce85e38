"""What training reads at every step, made once and kept on disk: latents of images and conditions of prompts."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from deradiff.align.conditions import Condition, capture
from deradiff.align.files import put, writing
from deradiff.align.latents import encode
from deradiff.align.pairs import Pairs, latent_file
from deradiff.align.settings import Settings

_MOST_HELD = 2 << 30  # bytes of files kept in memory


class Cache:
    """A folder of latents and conditions of one pipeline at one size.

    Args:
        folder: made if missing; what is in it already isn't made again.
        pipe: the pipeline.
        denoiser: of the pipeline.
        settings: give size and guidance.
    """

    def __init__(self, folder: Path, pipe: Any, denoiser: nn.Module, settings: Settings) -> None:
        self.folder, self.pipe, self.denoiser, self.settings = folder, pipe, denoiser, settings
        self.kept, self.held = dict[Path, Any](), 0

    @torch.no_grad()
    def fill(self, pairs: Pairs, advance: Callable[[int], None] = lambda count: None) -> None:
        """Make what is missing; ``advance`` is told of each prompt and image.

        Raises:
            AlignError: the pipeline can't be taught, its images not be encoded, or a file not be written.
        """
        images = dict.fromkeys(key for pair in pairs.pairs for key in (pair.chosen, pair.rejected))
        prompts = list(dict.fromkeys(pair.prompt for pair in pairs.pairs))
        for prompt in prompts:
            if not (path := self._condition(prompt)).exists():
                with writing(path) as file:
                    torch.save(vars(self._captured(prompt)), file)
            advance(1)
        shape = self.condition(prompts[0]).shape
        for key in images:
            if not (path := latent_file(self.folder, key)).exists():
                latent = pairs.latent(key)
                if latent is None or tuple(latent.shape) != shape:
                    latent = encode(self.pipe, pairs.image(key), shape, *self._size(shape))
                put(path, to_safetensors({"latent": latent.contiguous()}))
            advance(1)

    def condition(self, prompt: str) -> Condition:
        """Of a prompt that was filled in."""
        return self._read(self._condition(prompt), lambda path: Condition(**torch.load(path, weights_only=True)))

    def latent(self, key: str) -> Tensor:
        """Of an image that was filled in, without a row."""
        return self._read(latent_file(self.folder, key), lambda path: load_file(path)["latent"])

    def _captured(self, prompt: str) -> Condition:
        given = self.settings
        sizes = {"height": given.height, "width": given.width}
        return capture(self.pipe, self.denoiser, prompt, guidance_scale=given.guidance, **sizes)

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if self.settings.height is not None and self.settings.width is not None:
            return self.settings.height, self.settings.width
        scale = int(self.pipe.vae_scale_factor)
        if len(shape) == 3:
            return shape[1] * scale, shape[2] * scale
        side = int(self.pipe.default_sample_size) * scale  # of packed latents
        return side, side

    def _condition(self, prompt: str) -> Path:
        return self.folder / "conditions" / f"{sha256(prompt.encode()).hexdigest()}.pt"

    def _read(self, path: Path, read: Callable[[Path], Any]) -> Any:
        if path not in self.kept:
            self.held += path.stat().st_size
            while self.kept and self.held > _MOST_HELD:
                oldest = next(iter(self.kept))
                self.held -= oldest.stat().st_size
                del self.kept[oldest]
            self.kept[path] = read(path)
        return self.kept[path]

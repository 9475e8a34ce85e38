"""How far apart the images of two arms are at equal noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deradiff.errors import ResultsError

Files = NDArray[np.object_]


def rms_distances(files: Mapping[str, Files], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Mean over images of the RMS difference over pixels and channels, in [0, 1], for each pair of arms.

    Args:
        files: arm -> paths (P, S) of its images; those at one place share their noise.
        pairs: of arms.

    Raises:
        ResultsError: an image that can't be read, or of another size than the others.
    """
    sums, shape = dict.fromkeys(pairs, 0.0), next(iter(files.values())).shape
    for place in np.ndindex(shape):
        pixels = {arm: _read(str(table[place])) for arm, table in files.items()}
        if len(shapes := {image.shape for image in pixels.values()}) > 1:
            raise ResultsError(f"images of one comparison have several sizes, {shapes}; give another --out")
        for one, other in pairs:
            sums[one, other] += float(np.sqrt(np.mean(np.square(pixels[one] - pixels[other]))))
    return {pair: total / np.prod(shape).item() for pair, total in sums.items()}


def _read(file: str) -> NDArray[np.floating[Any]]:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    except OSError as error:
        raise ResultsError(f"image {file} can't be read ({error}); run the same deradiff compare again") from error

"""A run's image files, read back."""

import io
from hashlib import sha256
from pathlib import Path

from PIL import Image
from torch import Tensor

from deradiff.errors import PlanError
from deradiff.sampling import to_pixels


def read_picture(file: Path, digest: str) -> Tensor:
    """The pixels (3, H, W) in [0, 1] of an image whose file has this sha256.

    Raises:
        PlanError: it is missing, or has another.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        if sha256(content).hexdigest() == digest:
            return to_pixels(Image.open(io.BytesIO(content)))
        problem = "not the file that was journalled"
    raise PlanError(
        f"the image {file} is missing or damaged ({problem}); run deradiff sweep --resume again, then score"
    )

"""Every pipeline family: recording changes no image, paths are known, particles work or are refused with a word."""

import logging
from typing import Any

import pytest
import torch
from tests.zoo import ZOO, Specimen, anchor_of
from torch import Tensor

import deradiff
from deradiff.realignment import Handle

LEARN_VARIANCE = {"kandinsky", "deepfloyd"}
NOT_LINEAR = {"svd", "lumina2", "qwen_image_21"}  # a guidance scale a frame; rescaled token by token
OTHER_ROWS = {"dit", "text_to_video"}  # the scheduler steps both branches, or frames
COUNTLESS = {"hidream", "kandinsky5"}  # given embeddings of names of their own; they count texts
UNKNOWN = LEARN_VARIANCE | NOT_LINEAR | OTHER_ROWS | COUNTLESS

pytestmark = pytest.mark.parametrize("specimen", ZOO.values(), ids=ZOO.keys())


def attached(specimen: Specimen) -> tuple[Any, Handle]:
    pipe: Any = specimen.build()
    anchors = {name: anchor_of(getattr(pipe, name)) for name in specimen.components}
    several = len(anchors) > 1
    given, component = (anchors, None) if several else (next(iter(anchors.values())), specimen.components[0])
    return pipe, deradiff.realign(pipe, given, 0.4, component=component)


def sampled(specimen: Specimen, pipe: Any, count: int = 2) -> Tensor:
    rows = [torch.Generator().manual_seed(seed) for seed in range(count)]
    return specimen.images(pipe(**specimen.call(count), generator=rows if specimen.generators else rows[0]))


def test_paths_are_known_and_recording_them_changes_nothing(specimen: Specimen) -> None:
    pipe, handle = attached(specimen)
    plain = sampled(specimen, pipe)
    with handle.recording():
        assert torch.equal(sampled(specimen, pipe), plain)
    paths = handle.paths
    assert paths is not None
    assert (paths.unknown_reason is not None) == (specimen.name in UNKNOWN)
    if specimen.name in UNKNOWN:
        assert paths.path_kl is None
        assert paths.implicit_reward is None
        return
    assert paths.path_kl is not None
    assert paths.path_kl_to_anchor is not None
    assert (paths.path_kl > 0).all()
    torch.testing.assert_close(paths.path_kl / 0.4**2, paths.path_kl_to_anchor / 0.6**2)


def test_particles_give_as_many_images_or_are_refused(specimen: Specimen, caplog: pytest.LogCaptureFixture) -> None:
    pipe, handle = attached(specimen)
    handle.particles = 3
    if specimen.name in UNKNOWN:
        with pytest.raises(deradiff.RealignError, match="particles"):
            sampled(specimen, pipe)
        return
    with caplog.at_level(logging.ERROR):
        images = sampled(specimen, pipe)
    assert len(images) == 2
    assert images.isfinite().all()
    assert handle.paths is not None
    assert handle.paths.log_weights is not None
    assert handle.paths.log_weights.shape == (2, 3)
    assert (handle.paths.rows // 3).tolist() == [0, 1]
    if specimen.generators and specimen.name != "sd_inpaint":  # whose VAE draws from each row's generator
        log_weights = handle.paths.log_weights  # particles have their own image's conditions, whatever is beside it
        alone = sampled(specimen, pipe, 1)
        torch.testing.assert_close(handle.paths.log_weights[0], log_weights[0], rtol=1e-2, atol=1e-2)
        assert (alone[0] - images[0]).abs().max() < 1e-3 * alone.abs().max()

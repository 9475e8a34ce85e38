"""Every pipeline family: recording changes no image, paths are known, particles work or are refused with a word."""

import logging

import pytest
import torch
from tests.realignment.pipelines import known
from tests.zoo import ZOO

import deradiff

LEARN_VARIANCE = {"kandinsky", "deepfloyd"}
NOT_LINEAR = {"svd", "lumina2", "qwen_image_21"}  # a guidance scale a frame; rescaled token by token
OTHER_ROWS = {"dit", "text_to_video"}  # the scheduler steps both branches, or frames
COUNTLESS = {"hidream", "kandinsky5"}  # given embeddings of names of their own; they count texts
UNKNOWN = LEARN_VARIANCE | NOT_LINEAR | OTHER_ROWS | COUNTLESS

pytestmark = pytest.mark.parametrize("name", list(ZOO))


def test_paths_are_known_and_recording_them_changes_nothing(name: str) -> None:
    it = known(name)
    with deradiff.realign(it.pipe, it.anchors, 0.4) as handle:
        plain = it.run()
        with handle.recording():
            assert torch.equal(it.run(), plain)
        paths = handle.paths
    assert paths is not None
    assert (paths.unknown_reason is not None) == (name in UNKNOWN)
    if name in UNKNOWN:
        assert paths.path_kl is None
        assert paths.implicit_reward is None
        return
    assert paths.path_kl is not None
    assert paths.path_kl_to_anchor is not None
    assert (paths.path_kl > 0).all()
    torch.testing.assert_close(paths.path_kl / 0.4**2, paths.path_kl_to_anchor / 0.6**2)


def test_particles_give_as_many_images_or_are_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    it = known(name)
    with deradiff.realign(it.pipe, it.anchors, 0.4) as handle:
        handle.particles = 3
        if name in UNKNOWN:
            with pytest.raises(deradiff.RealignError, match="particles"):
                it.run()
            return
        with caplog.at_level(logging.ERROR):
            images = it.run()
        assert len(images) == 2
        assert images.isfinite().all()
        paths = handle.paths
        assert paths is not None
        assert paths.log_weights is not None
        assert paths.log_weights.shape == (2, 3)
        assert (paths.rows // 3).tolist() == [0, 1]
        if it.specimen.generators and name != "sd_inpaint":  # whose VAE draws from each row's generator
            # particles have their own image's conditions, whatever is beside it
            alone = it.run(1)
            assert handle.paths is not None
            torch.testing.assert_close(handle.paths.log_weights[0], paths.log_weights[0], rtol=1e-2, atol=1e-2)
            assert (alone[0] - images[0]).abs().max() < 1e-3 * alone.abs().max()

"""The zoo itself: its pipelines run, repeat, and answer to the weights of their denoisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.realignment.pipelines import known, sample
from tests.zoo import ZOO
from torch import Tensor

pytestmark = pytest.mark.parametrize("name", list(ZOO))


def test_repeats_itself_in_finite_images(name: str) -> None:
    images, specimen = known(name).plain, ZOO[name]
    assert len(images) == 2
    assert images.isfinite().all()
    assert torch.equal(images, sample(specimen, specimen.build()))
    assert not torch.allclose(images[0], images[1], atol=0.1)


def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    it = known(name)
    if not it.specimen.generators:
        pytest.skip("one generator for all images")
    alone = it.run(1)
    assert (it.plain[:1] - alone).abs().max() < 1e-5 * alone.abs().max()


def test_answers_to_each_denoiser(name: str) -> None:
    it = known(name)
    for part in it.anchors:
        images = it.run_with(part)
        change = (images - it.plain).flatten(1).norm(dim=1) / it.plain.flatten(1).norm(dim=1)
        assert images.isfinite().all()
        assert (change > 0.02).all(), f"{part} changes the images by {change.tolist()} only"


def test_no_denoiser_writes_to_an_input_tensor(name: str) -> None:
    """What it may do is to consume lists, and to fill caches: those are for the hook to guard."""
    it = known(name)
    for network in it.denoisers.values():
        watch(network)
    try:
        it.run(1)
    finally:
        for network in it.denoisers.values():
            del network.forward


def watch(network: torch.nn.Module) -> None:
    forward: Callable[..., Any] = network.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        before = [tensor.clone() for tensor in tensors]
        output = forward(*args, **kwargs)
        assert all(torch.equal(old, new) for old, new in zip(before, tensors, strict=True))
        return output

    network.forward = watched

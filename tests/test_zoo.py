"""The zoo itself: its pipelines run, repeat, and answer to the weights of their denoisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.zoo import ZOO, Specimen, anchor_of
from torch import Tensor

pytestmark = pytest.mark.parametrize("specimen", ZOO.values(), ids=ZOO.keys())


def run(pipe: Any, specimen: Specimen, n: int) -> Tensor:
    """n images of the seeds 0, 1, …."""
    seeds = [torch.Generator().manual_seed(seed) for seed in range(n)]
    return specimen.images(pipe(**specimen.call(n), generator=seeds if specimen.generators else seeds[0]))


def test_repeats_itself_in_finite_images(specimen: Specimen) -> None:
    images = run(specimen.build(), specimen, 2)
    assert len(images) == 2
    assert images.isfinite().all()
    assert torch.equal(images, run(specimen.build(), specimen, 2))
    assert not torch.allclose(images[0], images[1], atol=0.1)


def test_an_image_does_not_depend_on_its_batch(specimen: Specimen) -> None:
    if not specimen.generators:
        pytest.skip("one generator for all images")
    pipe = specimen.build()
    alone = run(pipe, specimen, 1)
    assert (run(pipe, specimen, 2)[:1] - alone).abs().max() < 1e-5 * alone.abs().max()


def test_answers_to_each_denoiser(specimen: Specimen) -> None:
    pipe = specimen.build()
    reference = run(pipe, specimen, 2)
    for name in specimen.components:
        network = getattr(pipe, name)
        setattr(pipe, name, anchor_of(network))
        images = run(pipe, specimen, 2)
        setattr(pipe, name, network)
        change = (images - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)
        assert images.isfinite().all()
        assert (change > 0.02).all(), f"{name} changes the images by {change.tolist()} only"


def test_no_denoiser_writes_to_an_input_tensor(specimen: Specimen) -> None:
    """What it may do is to consume lists, and to fill caches: those are for the hook to guard."""
    pipe = specimen.build()
    for name in specimen.components:
        watch(getattr(pipe, name))
    run(pipe, specimen, 1)


def watch(network: torch.nn.Module) -> None:
    forward: Callable[..., Any] = network.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        before = [tensor.clone() for tensor in tensors]
        output = forward(*args, **kwargs)
        assert all(torch.equal(old, new) for old, new in zip(before, tensors, strict=True))
        return output

    network.forward = watched

"""The difference of guided models, from branches in any arrangement."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.laws.schedules import randn
from torch import Tensor

from deradiff.trajectory import DenoiserCall
from deradiff.trajectory.calls import guided_difference

LAM = torch.tensor([0.3, 1.7], dtype=torch.float64)
Guidance = Callable[[Tensor], Tensor]  # from the branches (K, B, ...) to what a scheduler is given

GUIDANCES: dict[str, tuple[int, Guidance]] = {
    "none": (1, lambda b: b[0]),
    "negated": (1, lambda b: -b[0]),
    "classifier-free": (2, lambda b: b[0] + 7.5 * (b[1] - b[0])),
    "the other way round": (2, lambda b: b[1] + 7.5 * (b[0] - b[1])),
    "a scale an image": (2, lambda b: b[0] + torch.tensor([2.0, 9.0])[:, None, None, None] * (b[1] - b[0])),
    "two scales": (3, lambda b: b[0] + 6.0 * (b[1] - b[0]) + 1.5 * (b[2] - b[1])),
}


def branches(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predictions (K, 2, 4, 3, 3) of the reference and the anchor."""
    reference = randn(count, 2, 4, 3, 3, seed=seed)
    return reference, reference + 0.1 * randn(count, 2, 4, 3, 3, seed=seed + 1)


def mixed(reference: Tensor, aligned: Tensor) -> Tensor:
    return reference + LAM[:, None, None, None] * (aligned - reference)


def step(reference: Any, aligned: Any, mixture: Any) -> DenoiserCall:
    lams: list[Any] = [LAM]
    return DenoiserCall(
        component="unet", sample=None, timestep=1, predictions={0: reference, 1: aligned}, mixture=mixture, lams=lams
    )


@pytest.mark.parametrize("arrangement", ["stacked", "a call each"])
@pytest.mark.parametrize("name", GUIDANCES)
def test_it_is_what_guidance_makes_of_each_model(name: str, arrangement: str) -> None:
    count, guided = GUIDANCES[name]
    reference, aligned = branches(count)
    mixture = mixed(reference, aligned)
    if arrangement == "stacked":
        calls = [step(*((value.flatten(0, 1),) for value in (reference, aligned, mixture)))]
    else:
        calls = [step((reference[k],), (aligned[k],), (mixture[k],)) for k in range(count)]
    found = guided_difference(guided(mixture), calls)
    torch.testing.assert_close(found, guided(aligned) - guided(reference))


def test_it_survives_half_precision_and_branches_that_hardly_differ() -> None:
    reference, aligned = branches(2)
    reference[1], aligned[1] = reference[0] + 0.05 * reference[1], aligned[0] + 0.05 * aligned[1]
    mixture = mixed(reference, aligned).bfloat16()
    given = mixture[0] + 7.5 * (mixture[1] - mixture[0])
    reference, aligned = reference.bfloat16(), aligned.bfloat16()
    rows = reference.flatten(0, 1), aligned.flatten(0, 1)
    found = guided_difference(given, [step(*rows, mixture.flatten(0, 1))])
    difference = aligned.double() - reference.double()
    expected = difference[0] + 7.5 * (difference[1] - difference[0])
    assert found is not None
    assert (found - expected).norm() < 0.05 * expected.norm()
    same = guided_difference(mixture[0], [step(*rows, torch.cat([mixture[0], mixture[0]]))])
    assert same is not None
    assert same.isfinite().all()


def test_only_what_the_scheduler_steps_counts() -> None:
    """Further channels hold variances, further tokens another image; lists hold a tensor a row."""
    reference, aligned = (value[0] for value in branches(1))
    mixture = mixed(reference, aligned)
    expected = aligned - reference
    padded = [torch.cat([value, randn(*value.shape, seed=9)], dim=1) for value in (reference, aligned, mixture)]
    torch.testing.assert_close(guided_difference(mixture, [step(*padded)]), expected)
    rows = [list(value) for value in (reference, aligned, mixture)]
    torch.testing.assert_close(guided_difference(mixture, [step(*rows)]), expected)
    packed = [value.flatten(2) for value in (reference, aligned, mixture)]
    torch.testing.assert_close(guided_difference(mixture, [step(*packed)]), expected)


def test_what_is_unknown_is_none() -> None:
    reference, aligned = branches(2)
    mixture = mixed(reference, aligned)
    call = step(*((value.flatten(0, 1),) for value in (reference, aligned, mixture)))
    assert guided_difference(mixture[0] ** 2, [call]) is None
    per_pixel = mixture[0] + randn(1, 1, 3, 3, seed=4) * (mixture[1] - mixture[0])
    assert guided_difference(per_pixel, [call]) is None
    assert guided_difference(mixture[0], []) is None
    assert guided_difference(mixture[0], [step(None, None, None)]) is None
    assert guided_difference(mixture[0][:, :, :2], [call]) is None

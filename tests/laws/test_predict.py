import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deradiff.errors import ScheduleError
from deradiff.noise import PREDICTION_TYPES, NoiseLevel
from deradiff.predict import convert, convert_difference

from .schedules import randn

PAIRS = list(itertools.product(PREDICTION_TYPES, repeat=2))
pairs = pytest.mark.parametrize(("source", "target"), PAIRS)
angles = st.floats(0.05, 1.5)


def levels(angle: float) -> list[NoiseLevel]:
    """A variance-preserving and a flow level, for one image and for three."""
    theta = torch.tensor([angle, 0.3, 1.2], dtype=torch.float64)
    sigma = theta / 1.6
    both = [NoiseLevel(theta.cos(), theta.sin()), NoiseLevel(1 - sigma, sigma)]
    return both + [level[0] for level in both]


def by_definition(form: str, x_0: torch.Tensor, eps: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
    alpha, sigma = (s.reshape(*s.shape, *[1] * (x_0.ndim - s.ndim)) for s in (level.alpha, level.sigma))
    forms = {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0, "flow_prediction": eps - x_0}
    return forms[form]


def state(level: NoiseLevel, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x_0, eps = randn(3, 2, 4, seed=seed), randn(3, 2, 4, seed=seed + 1)
    alpha, sigma = (s.reshape(*s.shape, *[1] * (3 - s.ndim)) for s in (level.alpha, level.sigma))
    return x_0, eps, alpha * x_0 + sigma * eps


@pairs
@given(angle=angles, seed=st.integers(0, 99))
def test_conversions_keep_the_definition(source: str, target: str, angle: float, seed: int) -> None:
    for level in levels(angle):
        x_0, eps, x_t = state(level, seed)
        converted = convert(by_definition(source, x_0, eps, level), x_t, level, source, target)
        torch.testing.assert_close(converted, by_definition(target, x_0, eps, level), atol=1e-9, rtol=1e-9)


@pairs
@given(angle=angles, seed=st.integers(0, 99))
def test_conversions_invert_whatever_the_network_says(source: str, target: str, angle: float, seed: int) -> None:
    for level in levels(angle):
        prediction, x_t = randn(3, 2, 4, seed=seed), randn(3, 2, 4, seed=seed + 1)
        there = convert(prediction, x_t, level, source, target)
        torch.testing.assert_close(convert(there, x_t, level, target, source), prediction, atol=1e-9, rtol=1e-9)


@pairs
@given(angle=angles, seed=st.integers(0, 99))
def test_the_difference_of_conversions_needs_no_sample(source: str, target: str, angle: float, seed: int) -> None:
    for level in levels(angle):
        a, b, x_t = (randn(3, 2, 4, seed=seed + k) for k in range(3))
        difference = convert(a, x_t, level, source, target) - convert(b, x_t, level, source, target)
        converted = convert_difference(a - b, level, source, target)
        torch.testing.assert_close(converted, difference, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("form", PREDICTION_TYPES)
def test_a_form_is_returned_untouched_as_itself(form: str) -> None:
    prediction, level = randn(3, 2), NoiseLevel(torch.tensor(0.0), torch.tensor(1.0))
    assert convert(prediction, prediction, level, form, form) is prediction
    assert convert_difference(prediction, level, form, form) is prediction


@pytest.mark.parametrize("silent", ["epsilon", "sample"])
@pytest.mark.parametrize("target", PREDICTION_TYPES)
def test_a_level_that_leaves_the_answer_open_is_refused(silent: str, target: str) -> None:
    ends = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    level = NoiseLevel(*(ends if silent == "epsilon" else ends[::-1]))
    prediction = randn(2, 3)
    if target == silent:
        return
    with pytest.raises(ScheduleError, match=silent):
        convert(prediction, prediction, level, silent, target)
    with pytest.raises(ScheduleError, match=silent):
        convert_difference(prediction, level, silent, target)


@pytest.mark.parametrize("source", ["v_prediction", "flow_prediction"])
@pytest.mark.parametrize("target", PREDICTION_TYPES)
def test_v_and_flow_convert_at_both_ends(source: str, target: str) -> None:
    level = NoiseLevel(torch.tensor([0.0, 1.0, 0.6]).double(), torch.tensor([1.0, 0.0, 0.8]).double())
    x_0, eps, x_t = state(level, seed=0)
    converted = convert(by_definition(source, x_0, eps, level), x_t, level, source, target)
    torch.testing.assert_close(converted, by_definition(target, x_0, eps, level))


def test_dtype_is_that_of_the_prediction_and_names_are_checked() -> None:
    level = NoiseLevel(torch.tensor(0.6).double(), torch.tensor(0.8).double())
    half = randn(2, 3).half()
    assert convert(half, half, level, "epsilon", "sample").dtype == torch.float16
    with pytest.raises(ScheduleError, match="score"):
        convert(half, half, level, "epsilon", "score")

"""The figures draw the table's numbers and mark the chosen lam; colours mean the same lam everywhere."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from synthetic_sweep import LAMS

from deradiff.analysis.curves import paired_curve
from deradiff.analysis.reweight import Reweighted
from deradiff.analysis.statistics import Interval
from deradiff.report import figures
from deradiff.results import Results


def path(figure: Any) -> Any:
    """The trace with one marker a lam."""
    return next(trace for trace in figure.data if trace.marker.color is not None)


def x_axis(figure: Any) -> Any:
    return figure.layout.xaxis


ALL = [True] * len(LAMS)
SOME = [lam in (0, 0.5, 1, 3) for lam in LAMS]


def every_figure(results: Results, sampled: list[bool] = ALL, chosen: float = 1.0) -> list[Any]:
    warmth, faithfulness = paired_curve(results, "warmth"), paired_curve(results, "faithfulness")
    by_kl = figures.reward_against_kl(results, warmth, sampled, chosen=chosen)
    assert by_kl is not None
    return [
        figures.reward_against_lam(results, warmth, sampled, chosen=chosen),
        by_kl,
        figures.guard_against_objective(warmth, faithfulness, sampled, chosen=chosen),
    ]


def test_the_curve_is_the_mean_score(results: Results) -> None:
    for reward in results.scores:
        figure = figures.reward_against_lam(results, paired_curve(results, reward), ALL, chosen=1.0)
        assert path(figure).x == results.lams
        np.testing.assert_allclose(path(figure).y, results.scores[reward].mean(axis=(0, 1)))


def test_the_band_holds_the_whole_curve_and_closes_at_the_reference(results: Results) -> None:
    curve = paired_curve(results, "warmth")
    figure: Any = figures.reward_against_lam(results, curve, ALL, chosen=1.0)
    band = figure.data[0]
    count, reference = len(results.lams), curve.score[0]
    high, low = np.array(band.y[:count]), np.array(band.y[count:][::-1])
    assert high[0] == low[0] == reference
    np.testing.assert_allclose(high - reference, [own.high for own in curve.band])
    np.testing.assert_allclose(low - reference, [own.low for own in curve.band])


def test_the_top_axis_is_the_equivalent_beta(results: Results) -> None:
    figure: Any = figures.reward_against_lam(results, paired_curve(results, "warmth"), ALL, chosen=1.0)
    axis = figure.layout.xaxis2
    labels = dict(zip(axis.tickvals, axis.ticktext, strict=True))
    assert labels[0] == "∞"
    assert {float(labels[lam]) for lam in (1.0, 2.0)} == {0.05, 0.025}


def test_no_beta_no_top_axis(results: Results) -> None:
    unknown = dataclasses.replace(results, anchor_beta=None)
    figure = figures.reward_against_lam(unknown, paired_curve(unknown, "warmth"), ALL, chosen=1.0)
    assert "xaxis2" not in figure.to_plotly_json()["layout"]


def test_kl_is_in_nats_on_a_square_root_scale(results: Results) -> None:
    assert results.path_kl is not None
    figure = every_figure(results)[1]
    np.testing.assert_allclose(np.square(path(figure).x), results.path_kl.mean(axis=(0, 1)))
    axis = x_axis(figure)
    np.testing.assert_allclose(np.square(axis.tickvals), [float(text) for text in axis.ticktext], rtol=5e-3)


def test_no_kl_no_figure(results: Results) -> None:
    nothing = np.full(results.shape, np.nan)
    for path_kl in (None, nothing):
        unknown = dataclasses.replace(results, path_kl=path_kl)
        assert figures.reward_against_kl(unknown, paired_curve(unknown, "warmth"), ALL, chosen=1.0) is None


def test_lams_that_were_not_sampled_have_no_marker_no_bar_and_no_label(results: Results) -> None:
    """Their curve goes on between those that were; the recommended one is ringed wherever it lies."""
    by_lam, by_kl, against = every_figure(results, SOME, chosen=0.25)
    marked = [there or lam == 0.25 for there, lam in zip(SOME, LAMS, strict=True)]
    for figure in (by_lam, by_kl, against):
        assert [size > 0 for size in path(figure).marker.size] == marked
        assert np.isfinite(path(figure).y).all()
    for bars in (path(by_kl).error_y, path(against).error_x, path(against).error_y):
        # at lam = 0 the change is exactly 0
        expected = [there and lam > 0 for there, lam in zip(SOME, LAMS, strict=True)]
        for lengths in (bars.array, bars.arrayminus):
            assert [length > 0 for length in lengths] == expected
    assert {lam for lam, text in zip(LAMS, path(against).text, strict=True) if text} <= {0, 0.5, 1, 3}


def test_kl_between_sampled_lams_goes_as_its_root_along_lam(results: Results) -> None:
    """The synthetic path KL is quadratic in lam, so nothing is lost."""
    assert results.path_kl is not None
    known = dataclasses.replace(results, path_kl=np.where(SOME, results.path_kl, np.nan))
    mean = np.sqrt(results.path_kl.mean(axis=(0, 1)))
    found = path(every_figure(known, SOME)[1]).x
    np.testing.assert_allclose(found[:-1], mean[:-1])  # up to lam = 3
    assert found[-1] == found[-2]  # beyond it nothing is told


def test_the_path_goes_from_objective_to_guard(results: Results) -> None:
    figure = every_figure(results)[2]
    np.testing.assert_allclose(path(figure).x, results.scores["warmth"].mean(axis=(0, 1)))
    np.testing.assert_allclose(path(figure).y, results.scores["faithfulness"].mean(axis=(0, 1)))
    assert path(figure).text[4] == "1"


def test_one_colour_a_lam_in_every_figure_and_only_the_chosen_one_is_ringed(results: Results) -> None:
    colours = figures.lam_colours(results.lams)
    assert len(set(colours)) == len(results.lams)
    for figure in every_figure(results):
        marker = path(figure).marker
        assert list(marker.color) == colours
        assert [colour == figures.ACCENT for colour in marker.line.color] == [lam == 1 for lam in results.lams]


@pytest.mark.parametrize("chosen", [0.0, 0.25, 1.0, 4.0])
def test_the_chosen_lam_and_both_ends_keep_their_labels(results: Results, chosen: float) -> None:
    axis = x_axis(figures.reward_against_lam(results, paired_curve(results, "warmth"), ALL, chosen=chosen))
    assert {chosen, 4.0} <= set(axis.tickvals)
    assert np.diff(axis.tickvals).min() >= 4 / 7


TOLD = Reweighted(
    reward="warmth",
    sampled=(0.0,),
    lams=(0.0, 0.5, 1.0),
    score=tuple(Interval(mean=mean, low=mean - 0.1, high=mean + 0.1) for mean in (0.3, 0.5, 0.9)),
    change=tuple(Interval(mean=mean, low=mean - 0.1, high=mean + 0.1) for mean in (0.0, 0.2, 0.6)),
    kl=(-0.01, 1.0, 4.0),
    ess=(1.0, 0.4, 0.1),
    trusted=(True, True, False),
)


def mixture(figure: Any) -> dict[str, Any]:
    """The traces of the exact mixture by their dashes."""
    return {trace.line.dash: trace for trace in figure.data if trace.line.color == figures.MIXTURE and trace.line.dash}


def test_the_exact_mixture_is_dotted_where_it_is_not_trusted(results: Results) -> None:
    curve = paired_curve(results, "warmth")
    by_lam = figures.reward_against_lam(results, curve, ALL, chosen=1.0, reweighted=TOLD)
    by_kl = figures.reward_against_kl(results, curve, ALL, chosen=1.0, reweighted=TOLD)
    for figure, x in ((by_lam, TOLD.lams), (by_kl, (0.0, 1.0, 2.0))):
        drawn = mixture(figure)
        assert tuple(drawn["dash"].x) == x  # KL stands on a square-root scale, and an estimate below 0 at 0
        assert drawn["dash"].y == (0.3, 0.5, None)
        assert drawn["dot"].y == (None, 0.5, 0.9)  # from where the other ends
    assert mixture(figures.reward_against_lam(results, curve, ALL, chosen=1.0)) == {}


def test_the_trusted_range_is_the_effective_sample_size() -> None:
    figure: Any = figures.trusted_range(TOLD)
    assert figure.data[0].x == TOLD.lams
    assert figure.data[0].y == TOLD.ess
    lines = [(shape.x0, shape.y0) for shape in figure.layout.shapes]
    assert (0.0, 0) in lines  # a sampled lam
    assert any(y == 0.2 for _, y in lines)

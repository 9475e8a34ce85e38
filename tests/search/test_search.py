"""Laws of the search on runs whose answer is known: it finds it, spends what it may, and claims no more than it saw."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.search.conftest import DRAWS
from tests.search.worlds import GOLD, GRID, IRREGULAR, LAMS, PROMPTS, SEEDS, World, settings

from deradiff.analysis.criteria import Guard
from deradiff.analysis.decide import chosen_index
from deradiff.errors import ConfigError, ResultsError
from deradiff.search import search as module
from deradiff.search.acquisition import (
    SampleBlock,
    cut_to_budget,
    initial_design,
    is_sampled_near,
    next_block,
    widest_gap,
)
from deradiff.search.search import SearchResult, check_start, estimate_lam, known_images, search
from deradiff.search.settings import make_grid

POINTS = len(GRID)
WIDE = Guard("gold", margin=5.0)
pytestmark = pytest.mark.usefixtures("quick", "no_advice")


def gaps(found: SearchResult) -> np.ndarray:
    """Between sampled lams, as shares of the range."""
    lams = np.array(found.table.lams)
    return np.diff(lams[found.sampled_lams]) / lams[-1]


def seen(*blocks: SampleBlock, prompts: int = PROMPTS, points: int = POINTS) -> np.ndarray:
    sampled = np.zeros((prompts, SEEDS, points), bool)
    for block in blocks:
        sampled[np.ix_(block.prompts, block.seeds, block.lams)] = True
    return sampled


def test_it_finds_what_the_whole_grid_says_from_a_seventh_of_it_and_says_how_closely() -> None:
    for seed in range(1):
        world = World(seed)
        found, dense = world.search(), world.dense()
        answer, wanted = found.recommendation, LAMS[chosen_index(dense, settings().criteria)]
        assert abs(answer.lam - wanted) <= 0.1, seed
        assert found.images == world.sampled.sum() <= 0.15 * world.sampled.size
        assert answer.lams == LAMS
        assert answer.beta == pytest.approx(0.1 / answer.lam)
        low, high = found.interval
        assert low <= answer.lam <= high
        assert high - low <= 0.4
        assert low - 0.1 <= wanted <= high + 0.1
        assert world.sampled.any(axis=(0, 2)).sum() > 1  # one seed shows nothing of the noise
        assert min(abs(GRID[lam] - answer.lam) for lam in found.sampled_lams) <= 1 / 32 + 1e-9


def test_more_images_narrow_the_interval() -> None:
    """Six prompts with much noise, with a dozen and with hundreds of images after the start."""
    few, many = (
        np.mean([np.diff(World(seed, prompts=6, noise=0.2).search(max_images=most).interval) for seed in range(1)])
        for most in (30, 250)
    )
    assert many < few


def test_the_start_is_three_lams_of_up_to_32_prompts() -> None:
    assert initial_design(24, LAMS) == SampleBlock(range(24), range(1), (0, 16, 32))
    assert initial_design(100, LAMS) == SampleBlock(range(32), range(1), (0, 16, 32))
    assert initial_design(24, LAMS).images == 72
    assert initial_design(24, (0, 0.1, 0.2, 0.9, 1, 2)).lams == (0, 4, 5)  # the middle by lam, not by index


START = initial_design(PROMPTS, LAMS)
QUARTERS = SampleBlock(range(PROMPTS), range(1), (8, 24))
SECOND = SampleBlock(range(PROMPTS), range(1, 2), (0, 16, 24))


@pytest.mark.parametrize(
    ("sampled", "best", "spread", "wanted"),
    [
        # the answer itself, then a second seed around it, then where it could move to, the likelier first
        (seen(START), 24, (24,) * 4, SampleBlock(range(PROMPTS), range(1), (24,))),
        (seen(START), 17, (24,) * 4, SampleBlock(range(PROMPTS), range(1, 2), (0, 16, 32))),
        (seen(START, SECOND), 16, (16, 24, 16, 28), SampleBlock(range(PROMPTS), range(1), (28,))),
        # the middle of what is too wide to look over
        (seen(START, SECOND), 16, (16, 24, 16, 24), SampleBlock(range(PROMPTS), range(1), (8,))),
        # then more prompts, as many again, and when all are in use more seeds
        (
            seen(START, QUARTERS, SECOND, prompts=60),
            16,
            (16, 24, 16, 24),
            SampleBlock(range(24, 48), range(2), (0, 8, 16)),
        ),
        (seen(START, QUARTERS, SECOND), 16, (16, 24, 16, 24), SampleBlock(range(PROMPTS), range(2, 3), (0, 8, 16))),
    ],
    ids=["answer", "seed", "spread", "gap", "prompts", "seeds"],
)
def test_what_decides_most_comes_first(
    sampled: np.ndarray, best: int, spread: tuple[int, ...], wanted: SampleBlock
) -> None:
    assert next_block(sampled, LAMS, best, spread) == wanted


def test_last_comes_what_the_lams_around_the_answer_lack_and_then_nothing() -> None:
    every = SampleBlock(range(PROMPTS), range(SEEDS), (0, 16))
    sampled = seen(START, QUARTERS, every)
    blocks = []
    while (block := next_block(sampled, LAMS, 16, (16, 24, 16, 24))) is not None:
        blocks.append(block)
        index = np.ix_(block.prompts, block.seeds, block.lams)
        assert not sampled[index].any()
        sampled[index] = True
    assert [(own.lams, own.seeds.start) for own in blocks] == [((8,), 1), ((8,), 2), ((8,), 3)]
    sampled[10:14, 2, 8] = False
    assert next_block(sampled, LAMS, 16, (16, 24, 16, 24)) == SampleBlock(range(10, 14), range(2, 3), (8,))


def test_a_lam_is_sampled_near_where_it_or_its_neighbour_is_and_0_always() -> None:
    near = [lam for lam in range(POINTS) if is_sampled_near(seen(START), lam)]
    assert near == [0, 15, 16, 17, 31, 32]


@pytest.mark.parametrize(
    ("lams", "middle"),
    [((0, 16, 32), 8), ((0, 8, 16, 32), 24), ((0, 8, 16, 24, 32), None), ((0, 9, 16, 24, 32), 4), ((0, 32), 16)],
)
def test_a_gap_wider_than_a_quarter_of_the_range_is_found(lams: tuple[int, ...], middle: int | None) -> None:
    assert widest_gap(seen(SampleBlock(range(3), range(1), lams)), LAMS) == middle


def test_on_an_irregular_grid_what_is_near_is_measured_by_lam() -> None:
    """Twice as wide; its lams lie closer around 1 than elsewhere, so steps of the grid say nothing."""
    lams = (0.0, 0.5, 0.9, 0.95, 1.0, 1.05, 1.1, 2.0)
    sampled = seen(SampleBlock(range(PROMPTS), range(SEEDS), (0, 1, 2, 4, 7)), points=len(lams))
    assert widest_gap(sampled, lams) == 6  # from 1 to 2; 0 to 0.5 is a quarter
    sampled = seen(SampleBlock(range(PROMPTS), range(SEEDS), (0, 1, 2, 4)), points=len(lams))
    sampled[3, 1, 1] = sampled[3, 1, 4] = False
    block = next_block(sampled, lams, 2, (2, 2, 2, 2))
    assert block == SampleBlock(range(3, 4), range(1, 2), (4,))  # 1 is nearer to 0.9 than 0.5 is


def test_a_block_is_cut_to_its_first_prompts_or_left_where_less_than_a_quarter_would_remain() -> None:
    block = SampleBlock(range(8, 24), range(1, 3), (0, 16, 24))
    for images in range(block.images + 20):
        cut = cut_to_budget(block, images)
        if images < block.images / 4:
            assert cut is None
            continue
        assert cut is not None
        assert cut.images <= images < cut.images + 6 or cut == block  # not one prompt more would fit
        assert (cut.seeds, cut.lams, cut.prompts.start) == (block.seeds, block.lams, 8)


@pytest.mark.parametrize("most", [72, 203])
def test_the_budget_is_never_passed_and_used_up_to_a_quarter_of_a_round(most: int) -> None:
    world = World(0)
    found = world.search(max_images=most)
    assert found.images <= most
    assert f"{most} images allowed are used" in found.stopped
    assert world.asked[0] == START
    estimate = estimate_lam(found.sampled, settings().criteria, n_samples=DRAWS)
    wanted = next_block(world.sampled, LAMS, estimate.index, estimate.spread)
    assert wanted is not None
    assert most - found.images < wanted.images / 4


def test_images_that_were_swept_without_their_reference_get_it() -> None:
    """Of 40 prompts: more than a search begins with, so that it looks at some of these for the first time."""
    world = World(0, prompts=40, noise=0.3)
    world.sampled[np.ix_(range(40), range(2), (16, 32))] = True
    found = world.search(max_images=300)
    assert world.sampled[:, :2, 0].all()
    np.testing.assert_array_equal(world.sampled[:, :, 0], np.asarray(world.sampled.any(axis=2)))
    assert all(np.isfinite(own).all() for own in found.table.scores.values())
    assert found.images <= 300


@pytest.mark.parametrize("name", ["smooth", "alike", "flat"])
def test_it_never_stops_while_a_gap_is_wider_than_a_quarter_of_the_grid(name: str) -> None:
    """Nothing else keeps these from stopping at once: any interval is narrow enough."""
    curves = {"smooth": GRID, "alike": GRID, "flat": 0 * GRID}
    world = World(1, proxy=curves[name], prompts=8, noise=1e-3 if name == "alike" else 0.05)
    found = world.search(interval_width=10)
    assert "no wider than 10" in found.stopped
    assert gaps(found).max() <= 0.25 + 1e-9


def test_only_the_budget_ends_it_sooner() -> None:
    short = World(1, prompts=8).search(interval_width=10, max_images=40)
    assert gaps(short).max() > 0.25
    assert "40 images allowed are used" in short.stopped


@pytest.mark.parametrize(("prompts", "noise"), [(6, 1.0), (40, 0.3)])
def test_each_image_has_its_reference_and_all_are_counted(prompts: int, noise: float) -> None:
    world = World(0, prompts=prompts, noise=noise)
    found = world.search(max_images=400)
    pairs: Any = world.sampled.any(axis=2)
    np.testing.assert_array_equal(world.sampled[:, :, 0], pairs)
    assert found.images == sum(own.images for own in world.asked) == world.sampled.sum()
    assert found.sampled_lams == sorted({lam for own in world.asked for lam in own.lams})
    np.testing.assert_array_equal(known_images(found.sampled), world.sampled)
    used = int(pairs.any(axis=1).sum())
    assert (used > 32) == (prompts == 40)  # many join by and by
    assert found.table.shape == (used, 1, POINTS)  # of the prompts in use, whole
    assert all(np.isfinite(own).all() for own in found.table.scores.values())


def test_alarms_and_wins_are_of_images_not_of_what_was_filled_in() -> None:
    """Of a held-out reward that is noise alone a filled-in table moves smoothly, prompt by prompt."""
    for seed in range(1):
        world = World(seed, prompts=12)
        world.tables["gold"] = np.random.default_rng(seed).normal(size=world.tables["gold"].shape)
        found = world.search([WIDE], max_images=120)
        answer = found.recommendation
        lams = set(found.sampled_lams)
        for name, curve in answer.curves.items():
            scores = np.where(world.sampled, world.tables[name], np.nan)
            pairs = np.isfinite(scores - scores[:, :, [0]]).sum(axis=(0, 1))
            assert curve.pairs == tuple(pairs)
            assert {lam for lam, wins in enumerate(curve.wins) if not np.isnan(wins.mean)} == lams
            for lam in lams - {0}:
                change = scores[:, :, lam] - scores[:, :, 0]
                won = [np.mean(own[np.isfinite(own)] > 0) for own in change if np.isfinite(own).any()]
                assert curve.wins[lam].mean == pytest.approx(np.mean(won))
        assert answer.alarms
        assert not answer.raised_alarms
        for alarm in answer.alarms:
            assert {alarm.before, alarm.after} <= {GRID[lam] for lam in lams}


def test_a_narrow_spike_that_no_sampled_lam_meets_is_not_claimed_to_be_seen() -> None:
    """It is a sixteenth of the grid wide, a fifth of the way from one sampled lam to the next."""
    spike: Any = 3.0 * (np.abs(GRID - 19 / 32) < 0.04)
    world = World(0, proxy=0.3 * GRID + spike, gold=0 * GRID, prompts=12)
    found = world.search(interval_width=0.3, max_images=150)
    assert not spike[found.sampled_lams].any()
    assert spike[LAMS.index(found.recommendation.lam)] == 0
    told = found.recommendation.curves["proxy"].change
    assert max(own.high for own in np.array(told, dtype=object)[spike > 0]) < 1.5  # nothing of the 3 it rises by


@pytest.mark.parametrize("centre", [0.25, 0.7])
def test_a_spike_wider_than_a_quarter_of_the_grid_is_found(centre: float) -> None:
    bump: Any = 1.0 * (np.abs(GRID - centre) <= 0.14)
    world = World(0, proxy=bump, gold=0 * GRID, prompts=12)
    found = world.search(max_images=120)
    assert bump[found.sampled_lams].any()
    assert bump[LAMS.index(found.recommendation.lam)] == 1


SHAPES = {
    "two peaks": np.sin(3 * np.pi * GRID) ** 2 * (0.6 + 0.4 * GRID),
    "plateau": np.minimum(3 * GRID, 1),
    "step": (GRID > 0.4).astype(float),
    "flat": 0 * GRID,
    "noise-dominated": 0.1 * GRID,
}
LEAST = {"two peaks": 0.5, "plateau": 0.6}  # mean gain as a share of the largest where the guard holds


def test_searches_of_all_shapes_end_within_their_budget_and_keep_the_guard() -> None:
    """The guard's true loss passes the margin of 0.1 from lam = 0.5 on; of ten worlds one may take more."""
    lost, gained = [], {}
    for name, curve in SHAPES.items():
        gains = []
        for seed in range(2):
            world = World(seed, proxy=curve, prompts=12, noise=0.08, quiet=True)
            found = world.search(max_images=100, interval_width=0.1)
            taken, (low, high) = found.recommendation.lam, found.interval
            assert found.images <= 100
            assert low <= taken <= high
            if "100 images allowed" not in found.stopped:
                assert "no wider than 0.1" in found.stopped
                assert high - low <= 0.1
                assert gaps(found).max() <= 0.25 + 1e-9
            lost.append(world.loss(taken))
            gains.append(curve[LAMS.index(taken)])
        gained[name] = np.mean(gains) / (curve[GRID <= 0.5].max() or 1)
    assert np.mean(np.array(lost) > 0.1) <= 0.1
    assert {name: share for name, share in gained.items() if share < LEAST.get(name, 0)} == {}


def test_a_narrow_interval_ends_it_early() -> None:
    """Every prompt alike: a few lams and a second seed tell it, and most prompts aren't needed."""
    world = World(0, prompts=100, noise=0.001)
    for table in world.tables.values():
        table[:] = table[:1, :1] + 1e-4 * np.random.default_rng(0).normal(size=table.shape)
    found = world.search(interval_width=0.1)
    assert "no wider than 0.1" in found.stopped
    assert (world.sampled.any(axis=(1, 2)).sum(), world.sampled.any(axis=(0, 2)).sum()) == (32, 2)


def test_a_search_goes_on_from_what_is_there_as_if_it_had_not_stopped() -> None:
    whole, stopped = World(0, prompts=12), World(0, prompts=12)
    answer = whole.search(max_images=100)
    assert len(whole.asked) > 2

    def sample(block: SampleBlock) -> Any:
        if len(stopped.asked) == 2:
            raise KeyboardInterrupt
        return stopped.sample(block)

    with pytest.raises(KeyboardInterrupt):
        search(settings(max_images=100), LAMS, 12, sample)
    again = stopped.search(max_images=100)
    start, *others = whole.asked
    assert stopped.asked == [start, others[0], start, *others[1:]]
    assert (again.recommendation.lam, again.interval) == (answer.recommendation.lam, answer.interval)
    assert again.stopped == answer.stopped
    np.testing.assert_array_equal(stopped.sampled, whole.sampled)
    spent = stopped.search(max_images=60)  # less than is there
    assert spent.images == answer.images
    np.testing.assert_array_equal(stopped.sampled, whole.sampled)


def test_what_was_swept_counts_and_only_what_it_lacks_is_sampled() -> None:
    """Twelve prompts at lams of its own, among them all but the middle of the start."""
    swept = tuple(map(IRREGULAR.index, (0, 0.1, 1 / 3, 0.7, 1)))
    world, fresh = (World(2, lams=IRREGULAR, prompts=12) for _ in range(2))
    world.sampled[np.ix_(range(12), range(2), swept)] = True
    before = world.sampled.copy()
    found, alone = world.search(interval_width=0.1), fresh.search(interval_width=0.1)
    assert known_images(found.sampled)[before].all()
    assert (world.sampled & ~before).sum() == found.images - before.sum() < fresh.sampled.sum()
    assert set(swept) < set(found.sampled_lams)
    for answer in (found, alone):
        assert "no wider than 0.1" in answer.stopped
        assert abs(answer.recommendation.lam - 0.5) <= 0.1


def test_a_counted_guard_stays_counted_where_it_is_filled_in() -> None:
    """Twelve prompts that pass at every lam can't show that fewer than a tenth fail; forty can."""
    for prompts, least in ((12, 0.0), (40, 0.5)):
        world = World(0, prompts=prompts)
        fails = np.arange(prompts) == 3
        world.tables["gold"] = np.where(fails[:, None, None], 0.0, 1.0) * np.ones(world.sampled.shape)
        world.tables["gold"][5, 0, 16] = 0.0
        world.sample(SampleBlock(range(prompts), range(1), (0, 8, 16, 24, 32)))
        guard = Guard("gold", margin=0.15, relative=True)
        taken = LAMS[estimate_lam(world.known(), settings([guard]).criteria, n_samples=4).index]
        assert taken >= least if least else taken == 0


def test_the_kl_budget_is_kept_and_needs_path_kl() -> None:
    world = World(0, prompts=12, gold=0 * GRID)
    spread = np.random.default_rng(0).uniform(0.8, 1.2, size=(12, SEEDS, 1))
    asked = settings([], max_images=150)
    asked = asked.model_copy(update={"criteria": replace(asked.criteria, kl_budget=4.0)})

    def sample(block: SampleBlock) -> Any:
        return replace(world.sample(block), path_kl=np.where(world.sampled, 10 * spread * GRID**2, np.nan))

    found = search(asked, LAMS, 12, sample)
    answer = found.recommendation
    assert 0.3 < answer.lam <= np.sqrt(0.4)
    assert answer.constraints == ("path KL is at most 4 nats",)
    with pytest.raises(ResultsError, match="didn't record; search with diagnostics"):
        estimate_lam(world.known(), asked.criteria)


def test_an_objective_that_never_changes_is_reported() -> None:
    world = World(0, prompts=4)
    world.tables["proxy"] = np.ones_like(world.tables["proxy"])
    with pytest.raises(ResultsError, match="all 12 images sampled score the same, so no lam is better"):
        world.search()


@pytest.mark.parametrize(
    ("prompts", "wanted", "words"),
    [(1, {}, "2 prompts or more"), (PROMPTS, {"max_images": 71}, "takes 72 images, and 71 are allowed")],
)
def test_what_cannot_start_is_refused(prompts: int, wanted: dict[str, int], words: str) -> None:
    world = World(0)
    with pytest.raises(ConfigError, match=words):
        search(settings([GOLD], **wanted), LAMS, prompts, world.sample)
    with pytest.raises(ConfigError, match=words):
        check_start(settings([GOLD], **wanted), prompts, LAMS)
    assert world.asked == []


@pytest.mark.parametrize("wrong", [{"max_lam": 0}, {"interval_width": 0}, {"max_images": 0}, {"images": 5}])
def test_settings_that_cannot_be_used_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        module.Settings(criteria=settings().criteria, **wrong)
    assert module.Settings(criteria=settings().criteria, max_lam=2).grid == tuple(2 * GRID)


def test_the_grid_has_33_lams_and_those_that_were_sampled_in_its_range() -> None:
    assert make_grid(1.0) == LAMS
    assert make_grid(1.0, (0.25, 1.0)) == LAMS  # on it already
    assert set(make_grid(1.0, (-0.5, 0.1, 1 / 3, 1.5))) == {*LAMS, 0.1, 1 / 3}
    assert list(IRREGULAR) == sorted(set(IRREGULAR))

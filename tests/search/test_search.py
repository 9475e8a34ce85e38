"""Laws of the search on runs whose answer is known: it finds it, spends what it may, and keeps what it saw."""

import numpy as np
import pytest

from deradiff.errors import PlanError
from deradiff.recommend import recommend
from deradiff.results import Results
from deradiff.search import Found, Settings, search
from deradiff.search.following import following
from deradiff.search.observed import Rectangle, observed

PROMPTS, SEEDS = 24, 4
GRID = np.array(Settings(objective="proxy").grid)


class World:
    """Every image there could be: the objective rises, the guard falls from lam 0.4 on, noise goes along with lam."""

    def __init__(self, seed: int, *, prompts: int = PROMPTS, noise: float = 0.05) -> None:
        rng, shape = np.random.default_rng(seed), (prompts, SEEDS, len(GRID))
        self.tables = {}
        for name, curve in {"proxy": GRID, "gold": -np.clip(GRID - 0.4, 0, None)}.items():
            own = curve * (1 + 0.2 * rng.normal(size=(prompts, 1, 1))) + noise * _smooth(rng, shape)
            self.tables[name] = own + rng.normal(size=(prompts, 1, 1))
        self.asked: list[Rectangle] = []

    def part(self, own: Rectangle) -> Results:
        place = np.ix_(own.prompts, own.seeds, own.lams)
        shape = (len(own.prompts), len(own.seeds), len(own.lams))
        return Results(
            prompts=tuple(f"prompt {prompt}" for prompt in own.prompts),
            seeds=tuple(own.seeds),
            lams=tuple(GRID[list(own.lams)].tolist()),
            scores={name: table[place] for name, table in self.tables.items()},
            images=np.full(shape, "", dtype=object),
            anchor_beta=0.1,
        )

    def sample(self, number: int, own: Rectangle) -> Results:
        self.asked.append(own)
        assert number == len(self.asked)
        return self.part(own)

    def dense(self) -> Results:
        return self.part(Rectangle(range(len(self.tables["proxy"])), range(SEEDS), tuple(range(len(GRID)))))

    def find(self, **settings: object) -> Found:
        wanted = Settings.model_validate({"objective": "proxy", "guard": "gold:-0.1", "interval": 1e-6, **settings})
        return search(wanted, len(self.tables["proxy"]), SEEDS, self.sample)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Sums of a few waves of random size that are 0 at lam = 0."""
    waves = np.stack([np.sin(np.pi * count * GRID) for count in (0.5, 1, 1.5)])
    return rng.normal(size=(*shape[:2], 3)) @ waves


def test_it_finds_what_the_whole_grid_says_from_a_seventh_of_it_and_says_how_closely() -> None:
    held = 0
    for seed in range(6):
        world = World(seed)
        found, dense = world.find(), world.dense()
        wanted = recommend(dense, objective="proxy", guard="gold:-0.1")
        assert abs(found.choice.lam - wanted.lam) <= 0.1, seed
        assert found.images <= 0.15 * dense.images.size
        assert found.choice.beta == pytest.approx(0.1 / found.choice.lam)
        low, high = found.interval
        assert low <= found.choice.lam <= high
        assert high - low <= 0.4
        assert found.observed.used[1] > 1  # one seed tells nothing of the noise
        held += low <= wanted.lam <= high
    assert held >= 5


def test_the_answer_is_sampled_before_anything_else_around_it() -> None:
    world = World(0)
    start = Rectangle(range(PROMPTS), range(1), (0, 16, 32))
    seen = observed((PROMPTS, SEEDS, len(GRID)), [(start, world.part(start))])
    assert following(seen, 24, (24,) * 4) == Rectangle(range(PROMPTS), range(1), (24,))
    assert following(seen, 17, (24,) * 4) == Rectangle(range(PROMPTS), range(1, 2), (0, 16, 32))


@pytest.mark.parametrize(("prompts", "noise"), [(24, 0.05), (6, 1.0), (70, 1.0)])
def test_no_image_is_asked_for_twice_and_all_are_counted(prompts: int, noise: float) -> None:
    world = World(0, prompts=prompts, noise=noise)
    found = world.find()
    seen = [(p, s, lam) for own in world.asked for p in own.prompts for s in own.seeds for lam in own.lams]
    assert len(seen) == len(set(seen)) == found.images
    assert found.rounds == len(world.asked)
    assert {(p, s) for p, s, lam in seen if not lam} == {(p, s) for p, s, _ in seen}  # each has its reference


def test_the_alarm_and_the_wins_are_of_images_not_of_what_was_filled_in() -> None:
    """Of a held-out reward that is noise alone a filled-in table moves smoothly, prompt by prompt."""
    raised = 0
    for seed in range(12):
        world = World(seed, prompts=12)
        world.tables["gold"] = np.random.default_rng(seed).normal(size=world.tables["gold"].shape)
        choice = world.find(guard="gold:-5", images=150).choice
        raised += bool(choice.hacking)
        asked = {lam for own in world.asked for lam in own.lams}
        assert asked == {place for place, wins in enumerate(choice.curves["gold"].wins) if wins is not None}
        for alarm in choice.alarms:
            assert {alarm.before, alarm.after} <= {GRID[lam] for lam in asked}
    assert raised <= 2


@pytest.mark.parametrize("most", [72, 100, 150, 200])
def test_the_budget_is_never_passed(most: int) -> None:
    found = World(0).find(images=most)
    assert found.images <= most
    assert f"{most} images allowed" in found.stopped


def test_a_narrow_interval_ends_it_early() -> None:
    """Every prompt alike: a few lams and a second seed tell it, and most prompts aren't needed."""
    world = World(0, prompts=100, noise=0.001)
    for table in world.tables.values():
        table[:] = table[:1, :1] + 1e-4 * np.random.default_rng(0).normal(size=table.shape)
    found = world.find(interval=0.1)
    assert "no wider than 0.1" in found.stopped
    assert found.observed.used == (32, 2)
    # the answer stands next to a lam that was sampled, not on the filled-in curve alone
    assert min(abs(GRID[lam] - found.choice.lam) for lam in found.observed.lams) <= 1 / 32 + 1e-9


def test_many_prompts_join_by_and_by() -> None:
    world = World(0, prompts=100)
    found = world.find(images=500)
    assert world.asked[0].images == 96
    assert found.observed.used[0] > 32


@pytest.mark.parametrize(
    ("prompts", "settings", "words"),
    [(1, {}, "2 prompts or more"), (PROMPTS, {"images": 71}, "takes 72 images, and 71 are allowed")],
)
def test_what_cannot_start_is_refused(prompts: int, settings: dict[str, int], words: str) -> None:
    world = World(0)
    with pytest.raises(PlanError, match=words):
        search(Settings.model_validate({"objective": "proxy", **settings}), prompts, SEEDS, world.sample)
    assert world.asked == []

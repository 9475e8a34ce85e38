"""What a search asks and what it may spend."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deradiff.errors import PlanError, problems
from deradiff.recommend import Ask, ask

POINTS = 33  # lams of the grid that is chosen from
FIRST_PROMPTS = 32  # of the first round; more join where they decide most


class Settings(BaseModel):
    """The question of a search.

    Attributes:
        objective: as ``deradiff.recommend.recommend`` takes it.
        guard: likewise.
        kl_budget: likewise.
        highest: the largest lam looked at; the smallest is 0.
        interval: stop where the interval of lam (`deradiff.search.answer`) is no wider.
        images: how many it may sample; None for as many as there are prompts, seeds and lams near the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: str
    guard: str | None = None
    kl_budget: float | None = None
    highest: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    interval: float = Field(default=0.1, gt=0)
    images: int | None = Field(default=None, ge=1)

    @classmethod
    def of(cls, **settings: object) -> "Settings":
        """Settings as the user gives them.

        Raises:
            PlanError: names each that is wrong and why.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise PlanError(f"can't search: {problems(error.errors())}") from error

    @property
    def question(self) -> Ask:
        """As ``recommend`` reads it; raises ResultsError where it can't be read."""
        return ask(self.objective, self.guard, self.kl_budget)

    @property
    def grid(self) -> tuple[float, ...]:
        """The lams that are chosen from."""
        return tuple(round(self.highest * step / (POINTS - 1), 10) for step in range(POINTS))

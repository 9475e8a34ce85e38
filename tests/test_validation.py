"""Public settings say which of them is wrong, what was given and what is expected; never in pydantic's words."""

from typing import Any

import pytest

from deradiff.align.settings import Settings as AlignSettings
from deradiff.analysis.criteria import Criteria
from deradiff.errors import ConfigError
from deradiff.runs.cells import Request
from deradiff.runs.recipe import Recipe
from deradiff.search.settings import Settings as SearchSettings
from deradiff.validation import ValidatedModel

MODELS: list[tuple[type[ValidatedModel], dict[str, Any]]] = [
    (Recipe, {}),
    (AlignSettings, {"beta": 1}),
    (SearchSettings, {"criteria": Criteria(objectives=("warmth",))}),
    (Request, {"prompts": ["one"], "seeds": [0], "lams": [0, 1]}),
]


@pytest.mark.parametrize(("model", "good"), MODELS)
def test_every_setting_that_is_wrong_is_named(model: type[ValidatedModel], good: dict[str, Any]) -> None:
    model(**good)
    for name in model.model_fields:
        with pytest.raises(ConfigError, match=rf"^{name} is <object obj") as caught:
            model(**{**good, name: object()})
        assert "Input should" not in str(caught.value)
        with pytest.raises(ConfigError, match=f"{model.__name__} has no setting '{name}e'; did you mean {name}"):
            model(**good, **{f"{name}e": 1})
    for name in good:
        with pytest.raises(ConfigError, match=f"{model.__name__} needs {name}"):
            model(**{other: value for other, value in good.items() if other != name})


def test_many_mistakes_are_one_short_line() -> None:
    with pytest.raises(ConfigError, match=r"^prompts.0 is 0; expected a text; .*; and \d+ more$"):
        Request(prompts=range(100), seeds=[0], lams=[0])


@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1, 1 << 80])
def test_an_item_that_is_wrong_says_nothing_of_its_list(seed: int) -> None:
    with pytest.raises(ConfigError) as caught:
        Request(prompts=["one"], seeds=[0, seed], lams=[0])
    bound = f"a number below {1 << 63}" if seed > 0 else f"{-(1 << 63)} or more"
    assert str(caught.value) == f"seeds.1 is {seed}; expected {bound}"

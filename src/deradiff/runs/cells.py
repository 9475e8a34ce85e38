"""What a run can hold: cells, and requests for rectangles of them.

A cell is one image that is wanted, told by values, so that it means the same in every run of its recipe, however large
that has grown. Its key names its file and its line in the journal; it is the unit of resumption, sharding and merging.
"""

import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

from pydantic import Field, field_validator

from deradiff.errors import ConfigError
from deradiff.validation import Seed, ValidatedModel

_LONGEST_PROMPT = 100_000  # characters: a tokenizer takes minutes over a file that was meant otherwise

T = TypeVar("T", bound=Hashable)
Shard = tuple[int, int]  # k of n, from 0

WHOLE: Shard = (0, 1)


class Cell(NamedTuple):
    """One image: its prompt, seed, guidance scale (None for the pipeline's default) and mixing weight."""

    prompt: str
    seed: int
    guidance: float | None
    lam: float


class Keys:
    """Keys of a recipe's cells: 32 hex digits of a hash of the recipe and the cell's values.

    Args:
        identity: of the recipe (`deradiff.runs.recipe.Recipe.identity`).
    """

    def __init__(self, identity: str) -> None:
        self._base = blake2b(identity.encode(), digest_size=16)
        self._last = "", self._base  # a prompt and the hash up to it: a prompt's cells come together

    def __call__(self, cell: Cell) -> str:
        """The key of a cell."""
        prompt, seed, guidance, lam = cell
        last, begun = self._last
        if prompt != last or begun is self._base:
            begun = self._base.copy()
            begun.update(f"[{json.dumps(prompt, ensure_ascii=False)}, ".encode("utf-8", "surrogatepass"))
            self._last = prompt, begun
        digest = begun.copy()
        digest.update(_json_rest(seed, guidance, lam))
        return digest.hexdigest()


@lru_cache(maxsize=4096, typed=True)
def _json_rest(seed: int, guidance: float | None, lam: float) -> bytes:
    """What follows the prompt in a cell's JSON."""
    return json.dumps((seed, guidance, lam))[1:].encode()


def image_name(key: str) -> str:
    """The file of a cell's image, from the run folder."""
    return f"images/{key[:2]}/{key}.png"


class Request(ValidatedModel):
    """Every combination of some prompts, seeds, guidances and lams.

    Attributes:
        prompts: no two the same.
        seeds: each image's generator starts from its prompt and seed.
        lams: ascending; 0 is the reference, 1 the anchor.
        guidances: classifier-free guidance scales; None is the pipeline's default.

    Raises:
        ConfigError: names each that is wrong, what was given and what is expected.
    """

    prompts: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1)
    lams: tuple[float, ...] = Field(min_length=1)
    guidances: tuple[float | None, ...] = Field(default=(None,), min_length=1)

    @field_validator("prompts")
    @classmethod
    def _prompts(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not prompt.strip() for prompt in prompts):
            raise ValueError("a prompt is empty")
        for prompt in prompts:
            prompt.encode()  # a lone surrogate is no text
            if len(prompt) > _LONGEST_PROMPT:
                raise ValueError(
                    f"a prompt has {len(prompt):,} characters, expected at most {_LONGEST_PROMPT:,}: {prompt[:40]!r}..."
                )
        return _unique(prompts, "prompt")

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _unique(seeds, "seed")

    @field_validator("lams")
    @classmethod
    def _lams(cls, lams: tuple[float, ...]) -> tuple[float, ...]:
        return _unique(tuple(sorted(_finite(lam, "lams") for lam in lams)), "lam")

    @field_validator("guidances")
    @classmethod
    def _guidances(cls, guidances: tuple[float | None, ...]) -> tuple[float | None, ...]:
        if len(guidances) > 1 and None in guidances:
            raise ValueError("the pipeline's default (None) can't be one of several; give it as a number")
        return _unique(tuple(None if g is None else _finite(g, "guidances") for g in guidances), "guidance")

    def __init__(self, /, **values: Any) -> None:  # any sequence of numbers will do
        super().__init__(**values)

    @property
    def count(self) -> int:
        """How many cells."""
        return len(self.prompts) * len(self.seeds) * len(self.guidances) * len(self.lams)

    def cells(self) -> Iterator[Cell]:
        """Every cell: by guidance, prompt, seed, then lam, so that a prompt's images come together."""
        for guidance in self.guidances:
            for prompt in self.prompts:
                for seed in self.seeds:
                    for lam in self.lams:
                        yield Cell(prompt, seed, guidance, lam)


def blocks(cells: Iterable[Cell], size: int, shard: Shard = WHOLE) -> Iterator[list[Cell]]:
    """Consecutive cells of one guidance, ``size`` at a time: the blocks of shard k of n.

    They are always the same for the same cells, so that shards share the work without knowing of each other.

    Raises:
        ConfigError: not 0 <= k < n.
    """
    index, shards = shard
    if not 0 <= index < shards:
        raise ConfigError(f"there is no shard {index} of {shards}: expected 0 <= shard < {shards}")
    for number, block in enumerate(_chunks(cells, size)):
        if number % shards == index:
            yield block


def _chunks(cells: Iterable[Cell], size: int) -> Iterator[list[Cell]]:
    block: list[Cell] = []
    for cell in cells:
        if block and (len(block) == size or cell.guidance != block[0].guidance):
            yield block
            block = []
        block.append(cell)
    if block:
        yield block


def union(requests: Sequence[Request]) -> Iterator[Cell]:
    """The cells of several requests, each once, in their order."""
    for request, is_new in with_news(requests):
        yield from request.cells() if request is requests[0] else filter(is_new, request.cells())


def with_news(requests: Sequence[Request]) -> Iterator[tuple[Request, Callable[[Cell], bool]]]:
    """Each request, and what tells whether a cell of it is in none before."""
    earlier: list[tuple[set[str], set[int], set[float | None], set[float]]] = []
    for request in requests:
        before = tuple(earlier)
        yield (
            request,
            lambda cell, before=before: (
                not any(
                    cell.prompt in prompts and cell.seed in seeds and cell.guidance in guidances and cell.lam in lams
                    for prompts, seeds, guidances, lams in before
                )
            ),
        )
        earlier.append((set(request.prompts), set(request.seeds), set(request.guidances), set(request.lams)))


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{what} must be finite")
    return value + 0.0  # -0.0 is 0.0, also in a key


def _unique(items: tuple[T, ...], what: str) -> tuple[T, ...]:
    seen: set[T] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"the {what} {item!r} is given twice")
        seen.add(item)
    return items

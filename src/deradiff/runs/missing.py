"""What is left to sample: the cells of a shard, and which of them are missing in a run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from deradiff.runs.cells import WHOLE, Cell, Request, Shard, blocks, union, with_news
from deradiff.runs.index import Index
from deradiff.runs.recipe import Recipe
from deradiff.runs.store import Store

Missing = Callable[[Iterable[Cell]], Iterator[Cell]]

_CHUNK = 1024


def cells_of_shard(recipe: Recipe, requests: Sequence[Request], shard: Shard = WHOLE) -> Iterator[Cell]:
    """The cells of some requests that are shard k of n's, each once."""
    return (cell for block in shard_blocks(recipe, requests, shard) for cell in block)


def shard_blocks(recipe: Recipe, requests: Sequence[Request], shard: Shard = WHOLE) -> Iterator[list[Cell]]:
    """The blocks of some requests that are shard k of n's, whatever is there of them; each cell in one.

    Where an image depends on the lams that are computed beside it, a block holds (prompt, seed) pairs at all lams of
    their request, but for cells of earlier requests.
    """
    if not recipe.depends_on_lams:
        yield from blocks(union(requests), recipe.batch_size, shard)
        return
    pairs = max(1, recipe.batch_size // 2) if recipe.policy == "adaptive" else 1
    for request, is_new in with_news(requests):
        for block in blocks(request.cells(), pairs * len(request.lams), shard):
            if new_cells := list(filter(is_new, block)):
                yield new_cells


def missing_of(store: Store) -> Missing:
    """Picks from cells those that are not journalled, or whose image has gone.

    Raises:
        RunFolderError: a journal is damaged.
    """
    index, on_disk = store.index(), store.images_on_disk()
    return partial(missing_cells, store, index=index, on_disk=on_disk)


def missing_cells(store: Store, cells: Iterable[Cell], index: Index, on_disk: Index) -> Iterator[Cell]:
    """The cells that are not journalled, or whose image has gone, in their order; looked at in bounded memory."""
    chunk: list[Cell] = []
    for cell in cells:
        chunk.append(cell)
        if len(chunk) == _CHUNK:
            yield from _missing(store, chunk, index, on_disk)
            chunk = []
    yield from _missing(store, chunk, index, on_disk)


def _missing(store: Store, cells: list[Cell], index: Index, on_disk: Index) -> Iterator[Cell]:
    keys = [store.keys(cell) for cell in cells]
    are_there = index.holds(keys) & on_disk.holds(keys)
    yield from (cell for cell, is_there in zip(cells, are_there, strict=True) if not is_there)


def is_complete(store: Store, requests: Sequence[Request], shard: Shard = WHOLE) -> bool:
    """Whether no image of some requests is missing; stops at the first that is."""
    return next(missing_of(store)(cells_of_shard(store.recipe, requests, shard)), None) is None

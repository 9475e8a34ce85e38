"""A run from Python: sample what is missing, score it, read the table."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deradiff.errors import ConfigError, PartialScoresError
from deradiff.results import Results
from deradiff.runs.cells import WHOLE, Request, Shard
from deradiff.runs.costs import Cost, estimate_cost, timed_rates
from deradiff.runs.fingerprint import with_hashes
from deradiff.runs.in_hand import fingerprint_anchor, fingerprint_pipeline
from deradiff.runs.legacy import is_legacy, open_run_folder
from deradiff.runs.missing import cells_of_shard, is_complete, missing_of
from deradiff.runs.recipe import Recipe, check_same_recipe
from deradiff.runs.results import load_results
from deradiff.runs.store import Store
from deradiff.runs.votes import add_votes, read_votes
from deradiff.testbed import resolve_anchor, resolve_model
from deradiff.votes import Vote

Progress = Callable[[int], None]  # called with how many more images are done

if TYPE_CHECKING:
    from deradiff.runs.backend import Backend
    from deradiff.runs.runner import BlockSampler
    from deradiff.runs.sampler import Sampler


LAMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
SEEDS = 4


class Run:
    """A run folder: images under one recipe, which grow by asking for more.

    Args:
        folder: where it is; created with the first image.
        recipe: what all images share. None takes that of the run in the folder; with ``pipe``, the default recipe.
        pipe: the reference pipeline in hand, instead of ``recipe.model``: with a LoRA for style, another VAE, ...
        aligned: the anchor in hand, as `deradiff.realign` takes it, instead of ``recipe.anchor``.
        call_kwargs: more of the pipeline's arguments, the same for all images: ``negative_prompt``, ``image``, ...
        device: where a pipeline that is loaded runs; ``auto`` is CUDA where there is one, else MPS, else the CPU.
        offload: keep each of its networks on the CPU while it isn't called.
        cluster: samples and scores on the workers of a cluster (`deradiff.cluster.Cluster`), which load models and
            rewards by their names; None does so in this process.

    Raises:
        ConfigError: nothing says what to sample with, or a pipeline in hand with a cluster.
        RunFolderError: the folder holds a run of another recipe, a damaged one, or can't be a folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        recipe: Recipe | None = None,
        *,
        pipe: Any = None,
        aligned: Any = None,
        call_kwargs: Mapping[str, Any] | None = None,
        device: str = "auto",
        offload: bool = False,
        cluster: "Backend | None" = None,
    ) -> None:
        self.folder = Path(folder)
        if cluster is not None and pipe is not None:
            raise ConfigError("a cluster can't take a pipeline in hand; give a recipe that names model and anchor")
        if (pipe is None) != (aligned is None):
            raise ConfigError("pipe and aligned go together: give both, or a recipe that names model and anchor")
        self._pipe: Any = pipe
        self._aligned, self._call_kwargs = aligned, dict(call_kwargs or {})
        self._device, self._offload, self.cluster = device, offload, cluster
        known = Store.exists(self.folder) or is_legacy(self.folder)
        written = open_run_folder(self.folder) if known or (recipe is None and pipe is None) else None
        written = written if recipe is None else None
        if written is not None and pipe is None:  # models are looked at when something is sampled
            self.store = written
            return
        recipe = recipe or (written.recipe if written else Recipe())
        self.store = Store.at(self.folder, self._with_hashes(recipe))

    @property
    def recipe(self) -> Recipe:
        """What all images share."""
        return self.store.recipe

    def sample(
        self,
        prompts: Sequence[str] | None = None,
        seeds: int | Sequence[int] | None = None,
        lams: Sequence[float] | None = None,
        guidances: Sequence[float | None] | None = None,
        *,
        shard: Shard = WHOLE,
        progress: Progress | None = None,
    ) -> None:
        """Sample every combination that isn't there yet; images that are there keep their bytes.

        Args:
            prompts: None for all of the run.
            seeds: how many (0, 1, ...), or which; None for all of the run, 4 in a new one.
            lams: None for all of the run, 0 to 2 in quarters in a new one.
            guidances: None for all of the run, the pipeline's default in a new one.
            shard: (k, n) samples part k of n, counted from 0; others may sample the rest into the same folder.
            progress: called with how many more images are done; a progress bar by default.

        Raises:
            ConfigError: images that can't be asked for, a model that can't be loaded, a setting it doesn't take.
            RunFolderError: the folder can't be written, or another process samples the same images.
            ClusterError: with a cluster: it can't be reached, or no worker can begin.
            QuarantineError: with a cluster, at the end: some images failed at every try; all others are there.
        """
        self.sample_requests(self.requests(prompts, seeds, lams, guidances), shard=shard, progress=progress)

    def requests(
        self,
        prompts: Sequence[str] | None = None,
        seeds: int | Sequence[int] | None = None,
        lams: Sequence[float] | None = None,
        guidances: Sequence[float | None] | None = None,
    ) -> list[Request]:
        """What is asked for by these values, None standing for what the run has; by nothing, all its earlier requests.

        Raises:
            ConfigError: images that can't be asked for, or no prompts.
        """
        earlier = self.store.requests()
        if prompts is None and seeds is None and lams is None and guidances is None and earlier:
            return earlier
        if isinstance(prompts, str):
            raise ConfigError(f"expected a list of prompts, got {prompts!r}; put it into one")
        if prompts is None and not earlier:
            raise ConfigError("no prompts: a new run needs some")
        earlier_guidances = _merged(request.guidances for request in earlier) or (None,)
        named = tuple(guidance for guidance in earlier_guidances if guidance is not None)
        # the pipeline's default has no number, so it can't stand beside others in one request
        groups = [(None,), named] if named and None in earlier_guidances else [earlier_guidances]
        return [
            Request(
                prompts=tuple(prompts) if prompts is not None else _merged(request.prompts for request in earlier),
                seeds=_seeds(seeds) or _merged(request.seeds for request in earlier) or tuple(range(SEEDS)),
                lams=tuple(lams) if lams is not None else _merged(request.lams for request in earlier) or LAMS,
                guidances=group,
            )
            for group in (groups if guidances is None else [tuple(guidances)])
        ]

    def sample_requests(
        self,
        requests: Sequence[Request],
        *,
        shard: Shard = WHOLE,
        progress: Progress | None = None,
        sampler: "BlockSampler | None" = None,
    ) -> None:
        """Sample what is missing of some requests, by a sampler at hand or one that is made; see :meth:`sample`."""
        if sampler is None and self.is_complete(requests, shard):  # else a pipeline is loaded for nothing
            if not Store.exists(self.folder):  # more shards than blocks: others must find the run that is asked for
                with self.store.writing(shard):
                    pass
            for request in requests:
                self.store.add_request(request)
            return
        from deradiff.runs.runner import sample_missing

        with (
            self.block_sampler() if sampler is None else nullcontext(sampler) as active_sampler,
            _shown(progress, "sampling", lambda: self._missing(requests, shard)) as advance,
        ):
            sample_missing(self.store, requests, active_sampler, advance, shard)

    def block_sampler(self) -> "AbstractContextManager[BlockSampler]":
        """What samples this run's blocks while the context lasts: the cluster's workers, or :meth:`sampler`."""
        if self.cluster is None:
            return self.sampler()
        return self.cluster.sampler(self.store, device=self._device, offload=self._offload)

    @contextmanager
    def sampler(self) -> "Generator[Sampler]":
        """What samples, on the pipeline, which is loaded once and left as it was."""
        from deradiff.runs.runner import sampling

        if self._pipe is None:
            from deradiff.runs.models import load_pipeline

            check_same_recipe(self.folder, self.recipe, self._with_present_hashes())
            model = resolve_model(self.store.located(self.recipe.model))
            self._aligned = resolve_anchor(self.store.located(self.recipe.anchor))
            self._pipe = load_pipeline(
                model,
                location=self.recipe.model_location,
                device=self._device,
                dtype=self.recipe.dtype,
                offload=self._offload,
            )
        with sampling(self._pipe, self._aligned, self.recipe, self._call_kwargs) as sampler:
            yield sampler

    def is_complete(self, requests: Sequence[Request] | None = None, shard: Shard = WHOLE) -> bool:
        """Whether no image of some requests, by default all, is missing."""
        return is_complete(self.store, self.store.requests() if requests is None else requests, shard)

    def cost(
        self,
        requests: Sequence[Request] | None = None,
        shard: Shard = WHOLE,
        *,
        timed: bool = False,
        sampler: "BlockSampler | None" = None,
    ) -> Cost:
        """What is missing of some requests, by default all, and what it costs.

        Args:
            requests: of :meth:`requests`.
            shard: as :meth:`sample` takes it.
            timed: load the pipeline and time two short calls, where the run has recorded nothing yet; not on a cluster.
            sampler: one at hand, to time; not that of a cluster.

        Raises:
            ConfigError: a model that can't be loaded.
        """
        requests = self.store.requests() if requests is None else requests
        cost = estimate_cost(self.store, requests, shard)
        if cost.seconds is not None or not cost.missing or not (timed or sampler):
            return cost
        from deradiff.runs.sampler import Sampler

        if self.cluster is not None:
            return cost
        with self.sampler() if sampler is None else nullcontext(sampler) as active_sampler:
            if not isinstance(active_sampler, Sampler):
                return cost
            rates = timed_rates(active_sampler, missing_of(self.store)(cells_of_shard(self.recipe, requests, shard)))
        return cost if rates is None else estimate_cost(self.store, requests, shard, rates)

    def score(
        self,
        rewards: str | Sequence[str],
        *,
        device: str | None = None,
        dtype: Any = "float32",
        progress: Progress | None = None,
    ) -> None:
        """Score every image that has no score yet, from its file.

        Args:
            rewards: one or more, as ``deradiff score`` takes them: names, ``module:function``, urls.
            device: where scorers run; by default where the pipeline does.
            dtype: of their weights.
            progress: called with how many more images are done; a progress bar by default.

        Raises:
            PartialScoresError: a reward failed on some images; all others are scored, by the other rewards too.
            RewardError: an unknown reward, or one that failed on every image.
            RunFolderError: no image yet, or a damaged one.
            ClusterError: with a cluster: it can't be reached, or no worker can load the reward.
        """
        from deradiff.rewards import check_distinct, reward_name
        from deradiff.runs.scoring import score

        names = [rewards] if isinstance(rewards, str) else list(rewards)
        check_distinct(names)
        errors = list[PartialScoresError]()
        for reward in names:
            with _shown(progress, reward_name(reward), lambda: None) as advance:
                try:
                    score(
                        self.store,
                        reward,
                        advance,
                        device=device or self._device,
                        dtype=dtype,
                        backend=self.cluster,
                    )
                except PartialScoresError as error:  # the other rewards may be fine
                    errors.append(error)
        if errors:
            prompts = frozenset[str]().union(*(error.prompts for error in errors))
            raise PartialScoresError("; ".join(map(str, errors)), prompts) from errors[0]

    def results(self, guidance: float | None = None) -> Results:
        """The table of scores: prompts x seeds x lams, nan where nothing is.

        Args:
            guidance: which one; need not be given where there is one.

        Raises:
            RunFolderError: no image yet, or several guidances of which none is named.
        """
        return load_results(self.store, guidance)

    def votes(self) -> list[Vote]:
        """People's votes on pairs of the run's images, oldest first; those at one guidance are ``results().votes``.

        Raises:
            RunFolderError: a line of votes is damaged.
        """
        return read_votes(self.store)

    def add_vote(self, vote: Vote) -> None:
        """Add a vote, on disk before this returns; several raters and processes may do so at once.

        Raises:
            RunFolderError: the run has no such images, or the folder can't be written.
        """
        add_votes(self.store, [vote])

    def _missing(self, requests: Sequence[Request], shard: Shard) -> int:
        return sum(1 for _ in missing_of(self.store)(cells_of_shard(self.recipe, requests, shard)))

    def _with_present_hashes(self) -> Recipe:
        """The recipe with hashes of what the models are now; of those that had one when the run was begun."""
        names = {name: self.store.located(getattr(self.recipe, name)) for name in ("model", "anchor")}
        present = with_hashes(self.recipe.model_copy(update=names))
        known = {f"{name}_hash" for name in names if getattr(self.recipe, f"{name}_hash") is not None}
        return self.recipe.model_copy(update={name: getattr(present, name) for name in known})

    def _with_hashes(self, recipe: Recipe) -> Recipe:
        """The recipe with hashes of what its model and anchor are now; those that can't be inferred stay."""
        if self._pipe is not None:
            anchor = self._aligned
            known: dict[str, Any] = {
                "model": recipe.model or str(getattr(self._pipe, "name_or_path", "") or type(self._pipe).__name__),
                "anchor": recipe.anchor or (anchor if isinstance(anchor, str) else type(anchor).__name__),
                "model_hash": fingerprint_pipeline(self._pipe, self._call_kwargs),
                "anchor_hash": fingerprint_anchor(anchor, recipe.anchor_location),
            }
            if recipe.dtype == "auto":
                known["dtype"] = str(self._pipe.dtype).removeprefix("torch.")
            return Recipe(**{**recipe.model_dump(), **known})
        if not recipe.model or not recipe.anchor:
            raise ConfigError("nothing to sample with: give a recipe that names model and anchor, or pipe and aligned")
        if recipe.dtype == "auto":
            from deradiff.runs.models import with_stored_dtype

            recipe = with_stored_dtype(recipe)
        store = Store.open(self.folder) if Store.exists(self.folder) else None
        written = None if store is None else store.recipe
        names = {name: self._name(getattr(recipe, name), name, store) for name in ("model", "anchor")}
        unknown = {
            f"{name}_hash": None
            for name, path in names.items()
            if written is not None
            and getattr(written, f"{name}_hash") is None
            and (getattr(written, name), getattr(written, f"{name}_location"))
            == (path, getattr(recipe, f"{name}_location"))
        }
        # what had no hash when the run was begun, such as a hub id that wasn't in the cache, is known by its name
        return with_hashes(recipe).model_copy(update={**names, **unknown})

    def _name(self, name: str, part: str, store: Store | None) -> str:
        """How run.json names a folder: as before where it is the same one; else from the run folder, where it was given
        relative to the working directory."""
        before = "" if store is None else getattr(store.recipe, part)
        if store is not None and before and os.path.realpath(store.located(before)) == os.path.realpath(name):
            return before
        if os.path.isabs(name) or not os.path.exists(name):
            return name
        return os.path.relpath(os.path.realpath(name), os.path.realpath(self.folder))


def _seeds(seeds: int | Sequence[int] | None) -> tuple[int, ...]:
    if seeds is None:
        return ()
    values = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not values:
        raise ConfigError(f"expected 1 seed or more, got {seeds}")
    return values


def _merged(values: Iterator[Sequence[Any]] | Any) -> tuple[Any, ...]:
    """All values of several requests, each once, in order."""
    return tuple(dict.fromkeys(value for group in values for value in group))


@contextmanager
def _shown(progress: Progress | None, label: str, total: Callable[[], int | None]) -> Generator[Callable[[int], None]]:
    """Progress as asked for, or a bar that works in notebooks too."""
    if progress is not None:
        yield progress
        return
    from tqdm.auto import tqdm

    with tqdm(desc=label, total=total(), unit="image") as bar:
        yield lambda count: (bar.update(count), None)[1]

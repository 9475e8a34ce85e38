"""Sampling prompts of a model without an anchor, whose images a training then compares; on a worker and its driver."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deradiff.align.self_label import PromptRequest, PromptSamples, sample_prompt
from deradiff.anchor.location import Location
from deradiff.cluster.pool import Done, Pool, map_unordered
from deradiff.cluster.worker import DoBatch
from deradiff.errors import AlignError, ConfigError
from deradiff.runs.fingerprint import model_fingerprint
from deradiff.runs.models import load_pipeline
from deradiff.testbed import resolve_model


@dataclass(frozen=True)
class PromptJob:
    """Sampling prompts on one model.

    Attributes:
        model: as ``load_pipeline`` takes it, or an embedded one.
        location: where in it the model lies.
        dtype: of its weights.
        hash: that the model must have on the worker too; None where the driver doesn't know it.
    """

    model: str
    location: Location
    dtype: str
    hash: str | None

    @classmethod
    def of(cls, model: str, location: Location, dtype: str) -> "PromptJob":
        """The job as this process would do it."""
        return cls(model, location, dtype, model_fingerprint(resolve_model(model), location))

    @contextmanager
    def open(self) -> Generator[tuple[DoBatch, None]]:
        """Load the model.

        Raises:
            ConfigError: it can't be loaded, or isn't that of the driver.
        """
        model = resolve_model(self.model)
        pipe = load_pipeline(model, location=self.location, device="auto", dtype=self.dtype)
        if self.hash is not None and model_fingerprint(model, self.location) != self.hash:
            raise ConfigError(f"the model {self.model} is another one on this machine")

        def sample(requests: list[PromptRequest], context: None) -> PromptSamples:
            (request,) = requests  # the scheduler hands out one at a time
            return sample_prompt(pipe, request)

        yield sample, None


def sample_on(
    start: Callable[[], Pool], requests: Iterator[PromptRequest], tries: int
) -> Iterator[tuple[PromptRequest, PromptSamples]]:
    """Sample prompts on the workers of a pool, which do a `PromptJob`; arguments as of `map_unordered`.

    Raises:
        AlignError: a prompt can't be sampled.
        ClusterError: no worker can load the model, or nothing but errors comes of the work.
    """
    for result in map_unordered(start, requests, tries, lambda samples: samples):
        (request,) = result.items
        if not isinstance(result, Done):
            raise AlignError(f"{request.prompt[:60]!r} can't be sampled ({result.tries} tries): {result.error}")
        yield request, result.value

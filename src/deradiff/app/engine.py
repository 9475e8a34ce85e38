"""Drawing on one realigned pipeline for several visitors at once: locked, stoppable at every step, remembered."""

import inspect
import threading
from collections import OrderedDict
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from PIL.Image import Image

from deradiff.acceleration import Budget, Exact, Policy, Reuse
from deradiff.acceleration.cells import is_out_of_memory
from deradiff.app.requests import ImageRequest
from deradiff.app.turns import Job, Turns
from deradiff.errors import RealignError
from deradiff.realignment import sweeping
from deradiff.runs.cells import Cell
from deradiff.runs.models import call
from deradiff.runs.recipe import REFRESH, Recipe
from deradiff.runs.sampler import Sampled, Sampler, check_finite
from deradiff.sampling import around_step, final_latents, noise_seed

PREVIEW_STEPS, PREVIEW_REFRESH = 8, 4
_REMEMBERED = 256  # images


class Engine:
    """Draws images, one at a time, each as if it were drawn alone.

    Args:
        sampler: of a run, or of several anchors; its pipeline and handle are the engine's alone.

    Attributes:
        anchors: names, in the order of the sliders.
        turns: who may call the pipeline.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self.turns = sampler, Turns()
        self._images: OrderedDict[ImageRequest, Image] = OrderedDict()
        self._lock = threading.Lock()  # of the images

    @property
    def anchors(self) -> tuple[str, ...]:
        """Names, in the order of their sliders."""
        return self._sampler.handle.anchors

    @property
    def recipe(self) -> Recipe:
        """What images share."""
        return self._sampler.recipe

    @property
    def default_guidance(self) -> float | None:
        """The pipeline's default guidance scale; None where it takes none."""
        taken = inspect.signature(type(self._sampler.pipe).__call__).parameters
        default = taken["guidance_scale"].default if "guidance_scale" in taken else None
        return float(default) if isinstance(default, int | float) else None

    def as_guidance(self, scale: float | None) -> float | None:
        """A guidance scale of a form, where the pipeline's default is shown as its number, as cells hold it."""
        default = self.default_guidance
        return None if default is None or scale == default else scale

    def draw(self, request: ImageRequest, job: Job) -> Image:
        """An image, the same bytes as ``deradiff generate`` makes of the same settings unless it is a preview.

        Raises:
            Stopped: the job was stopped; the pipeline is free again within a step.
            DeradiffError: the pipeline can't draw it.
        """
        if (known := self._remembered(request)) is not None:
            return known
        with self.stepping(job):
            image = self._draw(request)
        with self._lock:
            self._images[request] = image
            if len(self._images) > _REMEMBERED:
                self._images.popitem(last=False)
        return image

    def _remembered(self, request: ImageRequest) -> Image | None:
        with self._lock:
            if request in self._images:
                self._images.move_to_end(request)
            return self._images.get(request)

    @contextmanager
    def stepping(self, job: Job, *, in_background: bool = False) -> Generator[None]:
        """Inside the block the pipeline is this thread's; each of its steps counts, and raises where it was stopped."""
        pipe = self._sampler.pipe

        def step(plain: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            job.check()
            output = plain(*args, **kwargs)
            job.done, job.total = job.done + 1, max(len(pipe.scheduler.timesteps), job.done + 1)
            job.check()
            return output

        with self.turns.taken(job, in_background=in_background), around_step(pipe.scheduler, step):
            job.done = job.total = 0
            yield

    def _draw(self, request: ImageRequest) -> Image:
        pipe, handle = self._sampler.pipe, self._sampler.handle
        lams = request.by_anchor
        largest = max(lams.values())
        cell = Cell(request.prompt, request.seed, request.guidance, largest)
        with ExitStack() as stack:
            if (policy := self._policy(request)) is not None:
                stack.enter_context(sweeping(handle, 1, policy, Budget(limit=1)))
            final = stack.enter_context(final_latents(pipe))
            handle.lam = dict(lams) if len(self.anchors) > 1 else largest
            particles = self.recipe.particles if self.recipe.needs_particles(largest) else 1
            handle.particles = 1 if request.preview else particles
            generator = torch.Generator().manual_seed(noise_seed(request.prompt, request.seed))
            recipe = self.recipe.model_copy(update={"steps": self._steps(request)})
            try:
                images = call(
                    pipe, recipe, [request.prompt], [generator], request.guidance, **self._sampler.call_kwargs
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise RealignError("one image does not fit in memory; serve a smaller size or dtype") from error
            check_finite([cell], final())
        return images[0]

    def _steps(self, request: ImageRequest) -> int:
        return min(request.steps, PREVIEW_STEPS) if request.preview else request.steps

    def _policy(self, request: ImageRequest) -> Policy | None:
        """How predictions are evaluated; None keeps the handle's, of interpolated weights or several anchors."""
        if self.recipe.policy == "weights" or len(self.anchors) > 1:
            return None
        if request.preview and self.recipe.particles == 1:
            return Reuse(PREVIEW_REFRESH)
        return Reuse(self.recipe.refresh or REFRESH) if self.recipe.policy == "reuse" else Exact()

    def sampler_for(self, job: Job) -> Sampler:
        """A sampler on the same pipeline for a sweep in the background, which lets visitors go first."""
        return _SharedSampler(self, self._sampler, job)


class _SharedSampler(Sampler):
    """Takes its turn block by block."""

    def __init__(self, engine: Engine, sampler: Sampler, job: Job) -> None:
        super().__init__(sampler.pipe, sampler.handle, sampler.recipe, sampler.call_kwargs)
        self._engine, self._job = engine, job

    def sample(self, cells: list[Cell]) -> Sampled:
        """As `Sampler.sample`; raises Stopped where the sweep was stopped."""
        with self._engine.stepping(self._job, in_background=True):
            return super().sample(cells)

"""Images drawn beside others are those drawn alone; a stop ends within a step; what can't be drawn is a sentence."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.runs.small_runs import pipeline

from deradiff.app.engine import PREVIEW_STEPS, Engine
from deradiff.app.requests import ImageRequest
from deradiff.app.turns import Job, Stopped
from deradiff.errors import ConfigError
from deradiff.realignment import realign
from deradiff.runs.models import call, set_scheduler
from deradiff.runs.recipe import Recipe
from deradiff.runs.runner import sampling
from deradiff.sampling import noise_seed


def asked(lam: float, seed: int = 0, steps: int = 2, *, preview: bool = False) -> ImageRequest:
    return ImageRequest(prompt="a red circle", lams=(("aligned", lam),), seed=seed, steps=steps, preview=preview)


def test_images_of_two_users_at_once_are_those_made_alone(engine: Engine, recipe: Recipe) -> None:
    import torch

    requests = [asked(lam, seed) for lam in (0.0, 0.3, 1.0, 1.7) for seed in (11, 12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda request: engine.draw(request, Job()), requests))
    pipe = pipeline(recipe.model)
    set_scheduler(pipe, recipe.scheduler)
    with realign(pipe, recipe.anchor) as handle:
        for request, image in zip(requests, together, strict=True):
            handle.lam = request.lams[0][1]
            generator = torch.Generator().manual_seed(noise_seed(request.prompt, request.seed))
            [alone] = call(pipe, recipe, [request.prompt], [generator], None)
            assert np.array_equal(np.asarray(image), np.asarray(alone)), request


def test_a_stop_ends_within_a_step_and_the_pipeline_draws_on(engine: Engine) -> None:
    job = Job()
    request = asked(0.5, seed=21, steps=200)
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(engine.draw, request, job)
        while not job.done:
            assert not drawing.done()
            threading.Event().wait(0.01)
        job.stop()
        with pytest.raises(Stopped):
            drawing.result()
    assert job.done < 200
    first = engine.draw(asked(0.5, seed=22), Job())
    engine._images.clear()
    assert first.tobytes() == engine.draw(asked(0.5, seed=22), Job()).tobytes()


def test_a_preview_takes_few_steps_and_an_image_is_drawn_once(engine: Engine) -> None:
    job = Job()
    image = engine.draw(asked(0.5, seed=31, steps=50, preview=True), job)
    assert job.done == PREVIEW_STEPS
    again = Job()
    assert engine.draw(asked(0.5, seed=31, steps=50, preview=True), again) is image
    assert again.done == 0


def test_each_of_several_anchors_has_its_lam(recipe: Recipe) -> None:
    anchors = {"one": recipe.anchor, "two": recipe.anchor}
    with sampling(pipeline(recipe.model), anchors, recipe, lam=dict.fromkeys(anchors, 0.0)) as sampler:
        engine = Engine(sampler)
        assert engine.anchors == ("one", "two")

        def drawn(one: float, two: float) -> bytes:
            lams = (("one", one), ("two", two))
            return engine.draw(ImageRequest(prompt="a red circle", lams=lams, steps=2), Job()).tobytes()

        assert drawn(1, 0) == drawn(0, 1) != drawn(0, 0)  # both are the same anchor


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"prompt": " "}, "empty"),
        ({"prompt": "x" * 2001}, "2,001 characters"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"steps": 201}, "steps is 201"),
        ({"steps": 0}, "steps is 0"),
        ({"lams": (("aligned", 3.1),)}, "3.1"),
        ({"lams": (("aligned", float("nan")),)}, "nan"),
        ({"lams": ()}, "lams"),
        ({"seed": 2**63}, "seed"),
        ({"seed": None}, "seed"),
        ({"guidance": 51}, "guidance"),
    ],
)
def test_what_may_be_asked_for_is_bounded(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ImageRequest(**{"prompt": "a", "lams": (("aligned", 0.5),), **wrong})

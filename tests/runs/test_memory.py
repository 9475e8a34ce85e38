"""Memory that runs out outside the networks: at the VAE, at a scheduler's step, on a CPU."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.zoo import ZOO, anchor_of

from deradiff.acceleration.cells import is_out_of_memory
from deradiff.errors import RealignError
from deradiff.runs.recipe import Recipe
from deradiff.runs.run import Run

MESSAGES = [
    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
    "could not create a primitive",
    "could not create a memory object",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "std::bad_alloc",
]


def tiny_run(folder: Path, **recipe: Any) -> Run:
    pipe: Any = ZOO["sd"].build()
    pipe.set_progress_bar_config(disable=True)
    return Run(folder, Recipe(steps=2, batch_size=4, **recipe), pipe=pipe, aligned=anchor_of(pipe.unet))


def failing_above(rows: int, call: Callable[..., Any], error: Callable[[], BaseException]) -> Callable[..., Any]:
    """Runs out of memory whenever more rows come in."""

    @wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim == 4]
        if max(map(len, tensors)) > rows:
            raise error()
        return call(*args, **kwargs)

    return wrapped


def out_of_memory() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory.")


def no_memory_on_the_cpu() -> BaseException:
    return RuntimeError(MESSAGES[0])


def sampled(run: Run) -> int:
    run.sample(["one", "two", "three"], seeds=1, lams=[0, 1], progress=lambda count: None)
    return run.results().missing


@pytest.mark.parametrize("error", [out_of_memory, no_memory_on_the_cpu, MemoryError])
@pytest.mark.parametrize("policy", ["exact", "adaptive", "weights"])
def test_a_scheduler_step_that_runs_out_of_memory_is_done_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException], policy: str
) -> None:
    run = tiny_run(tmp_path / "run", policy=policy)
    step = run._pipe.scheduler.step
    monkeypatch.setattr(run._pipe.scheduler, "step", failing_above(2, step, error), raising=False)
    assert sampled(run) == 0
    assert run.is_complete()


def test_latents_are_decoded_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run")
    decoder = run._pipe.vae.decoder
    monkeypatch.setattr(decoder, "forward", failing_above(1, decoder.forward, out_of_memory))
    assert sampled(run) == 0


@pytest.mark.parametrize("message", MESSAGES[1:3])
def test_a_decoder_that_runs_out_of_memory_is_given_fewer_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    run, failures = tiny_run(tmp_path / "run"), [message] * 2  # of the first block, and of its first half
    decode = run._pipe.vae.decode

    def failing(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if failures:
            raise RuntimeError(failures.pop())
        return decode(latents, *args, **kwargs)

    monkeypatch.setattr(run._pipe.vae, "decode", failing)
    assert sampled(run) == 0


def test_every_way_to_say_that_memory_ran_out_is_known() -> None:
    assert all(is_out_of_memory(RuntimeError(message)) for message in MESSAGES)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_one_image_that_does_not_fit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run")
    step = run._pipe.scheduler.step
    monkeypatch.setattr(run._pipe.scheduler, "step", failing_above(0, step, out_of_memory), raising=False)
    with pytest.raises(RealignError, match="one image alone does not fit in memory"):
        sampled(run)


def test_other_errors_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny_run(tmp_path / "run")
    step = run._pipe.scheduler.step
    broken = failing_above(2, step, lambda: RuntimeError("a shape is wrong"))
    monkeypatch.setattr(run._pipe.scheduler, "step", broken, raising=False)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        sampled(run)

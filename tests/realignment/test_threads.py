"""One realigned pipe under several threads, as a server runs it: runs wait for one another."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import deradiff

from . import loras
from .pipelines import subject
from .trace import difference, snapshot

THREADS = 8


def in_threads(work: Any, count: int = THREADS) -> list[Any]:
    results: list[Any] = [None] * count
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = work(index)
        except BaseException as error:  # noqa: BLE001  (told below)
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    return results


@pytest.mark.parametrize("ensemble", ["toggle", "batched", "separate"])
def test_threads_get_what_one_thread_gets_and_the_undo_is_exact(ensemble: Any) -> None:
    it = subject("sd")
    anchor: Any = it.anchors
    if ensemble != "separate":
        loras.add(it.pipe.unet, "mine")
        anchor = "mine"
    plain = it.run()
    before = snapshot(it.pipe)
    with deradiff.realign(it.pipe, anchor, lam=0.5, ensemble=ensemble):
        alone = it.run()
        assert not torch.equal(alone, plain)
        assert all(torch.equal(image, alone) for image in in_threads(lambda _: it.run()))
    assert difference(before, snapshot(it.pipe)) == []
    assert torch.equal(it.run(), plain)


def test_a_run_keeps_the_lam_that_was_set_when_it_began() -> None:
    it = subject("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=0.25) as handle:
        expected = it.run()
        began, finish = threading.Event(), threading.Event()

        def wait(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            began.set()
            finish.wait(60)
            return tensors

        def work(index: int) -> Any:
            if index == 0:
                return it.run(callback_on_step_end=wait)
            began.wait(60)
            handle.lam = 2.0  # while the other thread is in the middle of its run
            finish.set()
            return handle.lam

        image, lam = in_threads(work, 2)
        assert torch.equal(image, expected)
        assert lam == handle.lam == 2.0
        assert not torch.equal(it.run(), expected)


def test_a_callback_changes_lam_in_the_middle_of_its_own_run() -> None:
    it = subject("sd")
    with deradiff.realign(it.pipe, it.anchors, lam=0.25) as handle:
        constant = it.run()

        def change(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            handle.lam = 1.5
            return tensors

        assert not torch.equal(it.run(callback_on_step_end=change), constant)

"""Samples that a training compares, made on simulated workers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.fake_pool import disturbed, pool_of
from tests.runs.small_runs import PROMPTS, brightness, pipeline

from deradiff.align.self_label import PromptRequest, PromptSamples, self_label
from deradiff.anchor.location import Location
from deradiff.cluster.prompt_job import PromptJob, sample_on
from deradiff.cluster.worker import Host
from deradiff.errors import AlignError

SETTINGS: dict[str, Any] = {"prompts": [*PROMPTS, "a green square"], "reward": brightness, "images": 2, "steps": 1}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_samples_of_workers_are_those_of_one_process_to_the_byte(tmp_path: Path, models: tuple[str, str]) -> None:
    pipe, job = pipeline(models[0]), PromptJob.of(models[0], Location(), "float32")

    def sampler(requests: Iterator[PromptRequest]) -> Iterator[tuple[PromptRequest, PromptSamples]]:
        return sample_on(lambda: pool_of(job, disturbed()), requests, tries=3)

    here = self_label(pipe, folder=tmp_path / "here", **SETTINGS)
    counted = list[int]()
    there = self_label(pipe, folder=tmp_path / "there", sampler=sampler, advance=counted.append, **SETTINGS)
    assert there.fingerprint == here.fingerprint
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert counted == [2, 2, 2]


def test_a_prompt_that_cannot_be_sampled_is_an_error_and_the_others_are_kept(
    tmp_path: Path, models: tuple[str, str]
) -> None:
    job = PromptJob.of(models[0], Location(), "float32")
    pool = pool_of(job, lambda worker, items: "failed" if items[0].prompt == PROMPTS[1] else "done")
    pipe = pipeline(models[0])
    with pytest.raises(AlignError, match=r"'a blue square' can't be sampled \(3 tries\): can't do"):
        self_label(
            pipe, folder=tmp_path / "cut", sampler=lambda requests: sample_on(lambda: pool, requests, 3), **SETTINGS
        )
    assert pool.is_closed
    self_label(pipe, folder=tmp_path / "cut", **SETTINGS)
    self_label(pipe, folder=tmp_path / "whole", **SETTINGS)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_another_model_on_a_worker_makes_it_unusable(models: tuple[str, str]) -> None:
    answer = Host(PromptJob(models[0], Location(), "float32", hash="0" * 32)).load()
    assert (answer.kind, "is another one on this machine" in answer.text) == ("unusable", True)

"""Prompt embeddings encoded once, on pipelines of real classes: the same bits, and the encoders as they were."""

import copy
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.sweep.drawing import PROMPTS, counting, drawn
from tests.sweep.subject import make_plan
from tests.zoo import ZOO

import deradiff
from deradiff.sweep import Journal
from deradiff.sweep.encode import encoding_once
from deradiff.sweep.models import load_pipeline
from deradiff.sweep.run import run


@pytest.mark.parametrize(
    ("name", "encoders", "runs"),
    [("sd", ["text_encoder"], [2, 2]), ("sdxl", ["text_encoder", "text_encoder_2"], [2])],
)
def test_prompts_are_encoded_once_and_nothing_changes(name: str, encoders: list[str], runs: list[int]) -> None:
    """Two guidances x three batches of seeds of two prompts: each encoder runs once for them, and in Stable Diffusion 1
    once for the empty prompt beside them."""
    pipe: Any = ZOO[name].build()
    grid = [(guidance, images) for guidance in (3.0, 7.5) for images in (1, 2, 3)]
    plain = [drawn(pipe, PROMPTS, *settings) for settings in grid]
    with ExitStack() as stack:
        counts = [stack.enter_context(counting(getattr(pipe, encoder))) for encoder in encoders]
        stack.enter_context(encoding_once(pipe))
        remembered = [drawn(pipe, PROMPTS, *settings) for settings in grid]
    assert counts == [runs] * len(encoders)
    assert all(torch.equal(*pair) for pair in zip(plain, remembered, strict=True))


def test_encoders_are_given_back_as_they_were_even_after_an_error() -> None:
    pipe: Any = ZOO["sdxl"].build()
    encoders = (pipe.text_encoder, pipe.text_encoder_2)
    before = [(type(encoder), dict(vars(encoder))) for encoder in encoders]
    with pytest.raises(ZeroDivisionError), encoding_once(pipe):
        _ = 1 / (type(pipe.text_encoder) is before[0][0])
    for encoder, (kind, state) in zip(encoders, before, strict=True):
        assert type(encoder) is kind  # an intercepted class equals its original
        assert dict(vars(encoder)) == state


def test_only_the_latest_calls_are_kept() -> None:
    pipe: Any = ZOO["sd"].build()

    def encode(text: str) -> None:
        pipe.text_encoder(**pipe.tokenizer([text], padding="max_length", return_tensors="pt"))

    calls: list[str] = []
    plain = pipe.text_encoder.forward
    pipe.text_encoder.forward = lambda *args, **kwargs: calls.append("call") or plain(*args, **kwargs)
    with torch.no_grad(), encoding_once(pipe, entries=2):
        for text in ("a", "b", "a", "c", "a", "b"):  # c drives out b, which was used before a was
            encode(text)
    assert len(calls) == 4


def test_everything_an_encoder_is_called_with_counts() -> None:
    pipe: Any = ZOO["sd"].build()
    ids = torch.tensor([[1, 2, 3, 4]])
    calls = [
        {"input_ids": ids},
        {"input_ids": ids.int()},
        {"input_ids": ids.view(2, 2)},
        {"input_ids": ids + 1},
        {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0, 0]])},
        {"input_ids": ids, "output_hidden_states": True},
        {"input_ids": ids, "output_hidden_states": 1},
    ]
    with torch.no_grad():
        plain = [pipe.text_encoder(**given) for given in calls]
        with encoding_once(pipe, entries=len(calls)):
            for _ in range(2):
                for given, expected in zip(calls, plain, strict=True):
                    output = pipe.text_encoder(**given)
                    assert type(output) is type(expected)
                    assert output.keys() == expected.keys()
                    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
                    output.last_hidden_state.zero_()  # what a caller does to its copy stays there


def test_a_call_with_a_state_of_its_own_is_never_remembered() -> None:
    pipe: Any = ZOO["sd"].build()
    given = {"input_ids": torch.tensor([[1, 2]]), "cache": SimpleNamespace(length=0)}
    seen = []
    pipe.text_encoder.forward = lambda input_ids, cache: seen.append(cache.length)
    with encoding_once(pipe):
        for length in (0, 1):
            given["cache"].length = length
            pipe.text_encoder(**given)
    assert seen == [0, 1]


def test_encoding_once_outlives_the_hooks_of_offloading() -> None:
    """Offloading takes all hooks off and puts them on again after each call of the pipeline."""
    pipe: Any = ZOO["sd"].build()
    plain = drawn(pipe, PROMPTS, 3.0)
    pipe.enable_model_cpu_offload(device="cpu")
    with counting(pipe.text_encoder) as sizes, encoding_once(pipe):
        for _ in range(3):
            assert torch.equal(drawn(pipe, PROMPTS, 3.0), plain)
    assert sizes == [2, 2]


def test_a_pipeline_without_text_encoders_is_left_alone() -> None:
    pipe: Any = ZOO["dit"].build()
    before = copy.copy(vars(pipe))
    with encoding_once(pipe):
        assert vars(pipe) == before


def test_a_realigned_pipeline_is_encoded_once_too() -> None:
    pipe: Any = ZOO["sd"].build()
    aligned = copy.deepcopy(pipe.unet)
    with deradiff.realign(pipe, aligned, 0.5), counting(pipe.text_encoder) as sizes, encoding_once(pipe):
        for _ in range(2):
            drawn(pipe, PROMPTS, 1.0)
    assert sizes == [2]


def test_a_sweep_encodes_each_prompt_once_over_guidances_and_seeds(tmp_path: Path, folders: tuple[str, str]) -> None:
    plan = make_plan(folders, guidances=[1.0, 3.0, 7.5], seeds=range(5), lams=[0, 1], batch_size=4)
    assert plan.batch_count == 2 * 3 * 3  # of prompts, seeds and guidances
    pipe = load_pipeline(plan.model)
    with counting(pipe.text_encoder) as sizes:
        run(Journal(tmp_path, plan), pipe, plan.anchor)
    assert sizes == [1, 1, 1]  # each prompt, and the empty one

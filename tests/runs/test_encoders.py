"""Prompt embeddings encoded once, on pipelines of real classes: the same bits, and the encoders as they were."""

import copy
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.runs.drawing import PROMPTS, counting, drawn
from tests.runs.small_runs import grown, pipeline, recipe_of
from tests.zoo import ZOO

import deradiff
from deradiff.runs.encoders import cached_text_encoders


@pytest.mark.parametrize(
    ("name", "encoders", "encoded"),
    [("sd", ["text_encoder"], 3), ("sdxl", ["text_encoder", "text_encoder_2"], 2)],
)
def test_each_prompt_is_encoded_once_alone_and_comes_out_the_same(name: str, encoders: list[str], encoded: int) -> None:
    """Two guidances x the prompts alone, together, and repeated; Stable Diffusion 1 encodes the empty one beside."""
    pipe: Any = ZOO[name].build()
    grid = [
        (prompts, guidance)
        for guidance in (3.0, 7.5)
        for prompts in (PROMPTS[:1], PROMPTS[1:], PROMPTS, [PROMPTS[1], PROMPTS[0], PROMPTS[1]])
    ]
    plain = [drawn(pipe, *settings) for settings in grid]
    with ExitStack() as stack:
        counts = [stack.enter_context(counting(getattr(pipe, encoder))) for encoder in encoders]
        stack.enter_context(cached_text_encoders(pipe))
        remembered = [drawn(pipe, *settings) for settings in grid]
    assert counts == [[1] * encoded] * len(encoders)
    for (prompts, _), one, other in zip(grid, plain, remembered, strict=True):
        if len(prompts) == 1:
            assert torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)  # encoders round differently for other batches


def test_an_embedding_does_not_depend_on_the_prompts_beside_it() -> None:
    pipe: Any = ZOO["sd"].build()

    def encode(*texts: str) -> torch.Tensor:
        tokens = pipe.tokenizer(list(texts), padding="max_length", return_tensors="pt")
        return pipe.text_encoder(tokens.input_ids).last_hidden_state

    with torch.no_grad():
        alone = {}
        for text in ("one", "two", "three"):
            with cached_text_encoders(pipe):
                alone[text] = encode(text)[0]
        with cached_text_encoders(pipe):
            together = encode("three", "one", "two", "one")
    for row, text in zip(together, ("three", "one", "two", "one"), strict=True):
        assert torch.equal(row, alone[text])


def test_encoders_are_given_back_as_they_were_even_after_an_error() -> None:
    pipe: Any = ZOO["sdxl"].build()
    encoders = (pipe.text_encoder, pipe.text_encoder_2)
    before = [(type(encoder), dict(vars(encoder))) for encoder in encoders]
    with pytest.raises(ZeroDivisionError), cached_text_encoders(pipe):
        _ = 1 / (type(pipe.text_encoder) is before[0][0])
    for encoder, (kind, state) in zip(encoders, before, strict=True):
        assert type(encoder) is kind  # an intercepted class equals its original
        assert dict(vars(encoder)) == state


def test_only_the_latest_rows_are_kept() -> None:
    pipe: Any = ZOO["sd"].build()

    def encode(*texts: str) -> None:
        pipe.text_encoder(**pipe.tokenizer(list(texts), padding="max_length", return_tensors="pt"))

    with torch.no_grad(), counting(pipe.text_encoder) as sizes, cached_text_encoders(pipe, entries=2):
        encode("a", "b")
        encode("a")
        encode("c", "a")  # c drives out b, which was used before a was
        encode("b")
    assert sizes == [1] * 4


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
        with cached_text_encoders(pipe, entries=2 * len(calls)):
            for _ in range(2):
                for given, expected in zip(calls, plain, strict=True):
                    output = pipe.text_encoder(**given)
                    assert type(output) is type(expected)
                    assert output.keys() == expected.keys()
                    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state)
                    output.last_hidden_state.zero_()  # what a caller does to its copy stays there


def test_a_call_with_a_state_of_its_own_is_never_remembered() -> None:
    pipe: Any = ZOO["sd"].build()
    given = {"input_ids": torch.tensor([[1, 2]]), "cache": SimpleNamespace(length=0)}
    seen = []
    pipe.text_encoder.forward = lambda input_ids, cache: seen.append(cache.length)
    with cached_text_encoders(pipe):
        for length in (0, 1):
            given["cache"].length = length
            pipe.text_encoder(**given)
    assert seen == [0, 1]


def test_the_memory_outlives_the_hooks_of_offloading() -> None:
    """Offloading takes all hooks off and puts them on again after each call of the pipeline."""
    pipe: Any = ZOO["sd"].build()
    with cached_text_encoders(pipe):
        plain = drawn(pipe, PROMPTS, 3.0)
    pipe.enable_model_cpu_offload(device="cpu")
    with counting(pipe.text_encoder) as sizes, cached_text_encoders(pipe):
        for _ in range(3):
            assert torch.equal(drawn(pipe, PROMPTS, 3.0), plain)
    assert sizes == [1, 1, 1]


def test_a_pipeline_without_text_encoders_is_left_alone() -> None:
    pipe: Any = ZOO["dit"].build()
    before = copy.copy(vars(pipe))
    with cached_text_encoders(pipe):
        assert vars(pipe) == before


def test_a_realigned_pipeline_encodes_once_too() -> None:
    pipe: Any = ZOO["sd"].build()
    aligned = copy.deepcopy(pipe.unet)
    with (
        deradiff.realign(pipe, aligned, 0.5),
        counting(pipe.text_encoder) as sizes,
        cached_text_encoders(pipe),
    ):
        for _ in range(2):
            drawn(pipe, PROMPTS, 1.0)
    assert sizes == [1, 1]


def test_a_run_encodes_each_prompt_once_over_guidances_seeds_and_lams(tmp_path: Path, models: tuple[str, str]) -> None:
    recipe = recipe_of(models, batch_size=4)
    with counting(pipeline(recipe.model).text_encoder) as sizes:
        run = grown(tmp_path, recipe, prompts=PROMPTS, seeds=3, lams=[0, 1], guidances=[1.0, 3.0, 7.5])
    assert run.is_complete()
    assert sizes == [1, 1, 1]  # each prompt, and the empty one

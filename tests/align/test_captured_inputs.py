"""A denoiser's call captured from its pipeline, and repeated."""

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tests.zoo import ZOO
from torch import Tensor, nn

from deradiff.align.captured_inputs import call_denoiser, capture_inputs
from deradiff.align.loss import add_noise, sample_timesteps
from deradiff.errors import AlignError

TEXT = ("sd", "sd_v", "sdxl")
GIVEN = ("sd3", "flux", "sana", "qwen_image", "pixart_alpha", "auraflow", "cogview4", "wan")
_OF_THE_CALL = ("true_cfg_scale", "generator", "output_type", "num_inference_steps", "return_dict", "guidance_scale")


def ready(name: str) -> tuple[Any, nn.Module]:
    """A pipeline that takes prompts; where the specimen has no text encoders, of fixed embeddings."""
    specimen = ZOO[name]
    pipe: Any = specimen.build()
    pipe.set_progress_bar_config(disable=True)
    if not specimen.prompts:
        _embed(pipe, specimen.call(2))
    return pipe, getattr(pipe, specimen.components[0])


def _embed(pipe: Any, given: dict[str, Any]) -> None:
    plain = type(pipe).__call__

    def embedded(self: Any, prompt: Any = None, guidance_scale: float = 1.0, num_inference_steps: int = 2) -> Any:
        which = [int("blue" in text) for text in prompt]
        own = {
            key: value[which] if isinstance(value, Tensor) and value.ndim and len(value) == 2 else value
            for key, value in given.items()
            if key not in _OF_THE_CALL and not (key.startswith("negative") and "qwen" in type(self).__name__.lower())
        }
        settings = {"guidance_scale": guidance_scale, "num_inference_steps": num_inference_steps}
        return plain(self, **own, **settings, output_type="latent")

    pipe.__class__ = type(type(pipe).__name__, (type(pipe),), {"__call__": embedded})


@pytest.mark.parametrize("name", [*TEXT, *GIVEN])
@torch.no_grad()
def test_the_captured_call_is_the_pipelines_own(name: str) -> None:
    pipe, denoiser = ready(name)
    plain_class, calls = type(denoiser), list[tuple[Tensor, Tensor, Tensor]]()

    def record(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = [*args, *kwargs.values()]
        calls.append((given[0], pipe.scheduler.timesteps[len(calls)], output[0]))

    captured = capture_inputs(pipe, denoiser, "a red circle")
    assert type(denoiser) is plain_class  # nothing stays attached
    hook = denoiser.register_forward_hook(record, with_kwargs=True)
    settings = {"output_type": "latent"} if name in TEXT else {}
    pipe(prompt=["a red circle"] * 2, guidance_scale=1.0, num_inference_steps=3, **settings)
    hook.remove()
    assert len(calls) == 3
    for sample, timestep, output in calls:
        again = call_denoiser(denoiser, [captured], sample, timestep.expand(2))
        torch.testing.assert_close(again, output, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [*TEXT, "sd3", "flux", "qwen_image"])
@torch.no_grad()
def test_prompts_that_share_a_batch_keep_their_own_inputs(name: str) -> None:
    pipe, denoiser = ready(name)
    inputs = [
        capture_inputs(pipe, denoiser, prompt) for prompt in ("a red circle", "a large blue square", "a red circle")
    ]
    x_t, t = torch.randn(6, *inputs[0].shape), torch.tensor([900.0, 500.0, 10.0, 900.0, 300.0, 10.0])
    batched = call_denoiser(denoiser, inputs, x_t, t)
    alone = torch.cat(
        [call_denoiser(denoiser, [c], x_t[2 * n : 2 * n + 2], t[2 * n : 2 * n + 2]) for n, c in enumerate(inputs)]
    )
    torch.testing.assert_close(batched, alone, rtol=1e-4, atol=1e-5)
    swapped = call_denoiser(denoiser, inputs[::-1], x_t, t)
    assert torch.equal(swapped[2:4], batched[2:4])
    other = call_denoiser(denoiser, [inputs[1]], x_t[:2], t[:2])
    assert not torch.allclose(other, batched[:2], atol=1e-5)


@pytest.mark.parametrize(("name", "told"), [("lumina2", "not known"), ("z_image", "one row"), ("sd_pag", "one row")])
def test_calls_that_cannot_be_repeated_are_refused(name: str, told: str) -> None:
    pipe, denoiser = ready(name)
    with pytest.raises(AlignError, match=told):
        capture_inputs(pipe, denoiser, "a red circle")
    with pytest.raises(AlignError, match="takes no prompt"):
        capture_inputs(ZOO["dit"].build(), denoiser, "a red circle")


@pytest.mark.parametrize("name", ["sd", "sd_v", "sd3", "flux"])
def test_noised_latents_are_what_the_sampler_would_see(name: str) -> None:
    """A perfect prediction has no error, and one step of the sampler from it all the way leads back to the latent."""
    scheduler: Any = ZOO[name].build().scheduler
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    batch = add_noise(scheduler, x_0, eps, sample_timesteps(scheduler, 5, generator))
    assert batch.squared_errors(lambda x_t, t: batch.target).tolist() == [0] * 5
    padded = torch.cat([batch.target + 2, batch.target], 1)
    assert batch.squared_errors(lambda x_t, t: padded).tolist() == pytest.approx([12.0] * 5)
    if name in ("sd3", "flux"):
        sigma = batch.timestep[:, None] / 1000
        assert torch.allclose(batch.x_t - sigma * batch.target, x_0, atol=1e-5)
    else:
        alpha = scheduler.alphas_cumprod[batch.timestep].sqrt()[:, None]
        assert torch.allclose(batch.x_t, scheduler.add_noise(x_0, eps, batch.timestep), atol=1e-5)
        v = name == "sd_v"
        assert torch.allclose(batch.target, scheduler.get_velocity(x_0, eps, batch.timestep) if v else eps, atol=1e-5)
        assert alpha.shape == (5, 1)


def test_times_are_uniform_on_a_table_and_shifted_for_flows() -> None:
    generator = torch.Generator().manual_seed(0)
    table = sample_timesteps(ZOO["sd"].build().scheduler, 4000, generator)
    assert not table.is_floating_point()
    assert 0 <= table.min() < 10 < 990 < table.max() <= 999
    flow: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    shift, times = flow.config.shift, sample_timesteps(flow, 20_000, generator) / 1000
    unshifted = times / (shift - (shift - 1) * times)
    assert 0 < times.min() < times.max() <= 1
    assert unshifted.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_the_times_of_a_pair_are_spread_over_the_range(name: str) -> None:
    """Of eight draws one falls into each eighth, in no order: each draw alone is uniform."""
    scheduler: Any = ZOO[name].build().scheduler
    drawn = torch.stack([sample_timesteps(scheduler, 8, torch.Generator().manual_seed(seed)) for seed in range(200)])
    shift = getattr(scheduler.config, "shift", None) or 1.0
    share = drawn / (shift * 1000 - (shift - 1) * drawn)
    eighths = (8 * share).long()
    assert torch.equal(eighths.sort(1).values, torch.arange(8).expand(200, 8))
    assert all(len(set(column.tolist())) == 8 for column in eighths.T)

"""Feynman–Kac correction: where it leads, what it leaves alone, and what it refuses."""

import logging
import math
from typing import Any

import diffusers
import pytest
import torch
from scipy.stats import wasserstein_distance
from tests.trajectory.oracles import attached, draw, exact
from tests.zoo import ZOO, anchor_of
from torch import Generator, Tensor

import deradiff
from deradiff.realignment.expand import fork_generators, select_rows
from deradiff.sampling import around_step
from deradiff.trajectory import DenoiserCall, PathRecorder
from deradiff.trajectory.smc import Particles, permute_solver_state


def seeded(count: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize(
    "scheduler",
    ["EulerAncestralDiscreteScheduler", "DDPMScheduler", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"],
)
def test_particles_reach_the_mixture_that_plain_sampling_misses(scheduler: str) -> None:
    pipe, handle = attached(0.25, scheduler)
    truth = exact(0.25).sample(2000, Generator().manual_seed(1))[:, 0]
    distance: dict[int, float] = {}
    for handle.particles in (1, 16):
        distance[handle.particles] = wasserstein_distance(draw(pipe, 1000)[:, 0], truth)
    assert distance[1] > 0.25
    assert distance[16] < 0.12 < 0.5 * distance[1]
    assert handle.paths is not None
    assert handle.paths.ancestors is not None
    draws = scheduler in ("EulerAncestralDiscreteScheduler", "DDPMScheduler")
    assert bool((handle.paths.ancestors < 16).any()) == draws  # where no noise is drawn, none is resampled
    assert handle.paths.stochastic == draws


def test_noise_that_is_asked_of_ddim_lets_particles_resample() -> None:
    pipe, handle = attached(0.25, "DDIMScheduler", particles=8)
    points = pipe(500, 40, generator=Generator().manual_seed(0), eta=1.0).images[:, 0]
    assert handle.paths is not None
    assert handle.paths.ancestors is not None
    assert (handle.paths.ancestors < 8).any()
    assert handle.paths.implicit_reward is not None
    assert wasserstein_distance(points, exact(0.25).sample(2000, Generator().manual_seed(1))[:, 0]) < 0.15


def test_a_schedule_that_starts_from_noise_alone() -> None:
    """At alpha = 0 the noise that is drawn can't be told in units of x / alpha, and nothing is lost by that."""
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    pipe, handle = attached(0.0, "DDIMScheduler", options)
    with handle.recording():
        points = pipe(500, 40, generator=Generator().manual_seed(0), eta=1.0).images
    assert pipe.scheduler.alphas_cumprod[-1] == 0
    assert handle.paths is not None
    assert handle.paths.implicit_reward is not None
    ratio = exact(1.0).log_prob(points) - exact(0.0).log_prob(points)
    assert torch.corrcoef(torch.stack([handle.paths.implicit_reward, ratio]))[0, 1] > 0.9


def test_who_takes_over_takes_over_everything() -> None:
    """At the third step two of three particles lose all weight: what is stepped from there is the first's."""
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    scheduler.set_timesteps(6)
    recorder, given, rows = PathRecorder(seeded(1), 3), [], torch.arange(1.0, 4.0)[:, None]

    def kept(step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given.append((*args, [value for value in scheduler.model_outputs if value is not None]))
        return step(*args, **kwargs)

    x = torch.randn(3, 5, generator=Generator().manual_seed(0))
    with around_step(scheduler, kept), recorder.record_steps(scheduler):
        for place, t in enumerate(scheduler.timesteps):
            prediction = 0.1 * x + rows
            away = 0.1 * rows if place < 2 else 30.0 * (rows > 1) if place == 2 else torch.zeros(3, 1)
            pair = {0: (prediction - 0.5 * away,), 1: (prediction + 0.5 * away,)}
            recorder.observe(
                DenoiserCall(component="", sample=x, timestep=t, predictions=pair, mixture=(prediction,), lams=[0.5])
            )
            x = scheduler.step(prediction, t, x, generator=Generator().manual_seed(place), return_dict=False)[0]
    prediction, _, sample, *_, history = given[2]
    assert len(history) == 2
    for value in (prediction, sample, *history):
        assert torch.equal(value, value[:1].expand_as(value))
    assert all(torch.equal(given[k][0], given[k][0][:1].expand(3, 5)) for k in (0, 1)) is False
    run_with_particles = recorder.paths()
    assert run_with_particles.q is not None
    assert run_with_particles.ancestors is not None
    assert run_with_particles.ancestors.item() == 1
    assert recorder.statistics is not None
    assert torch.equal(recorder.statistics.values["q"], recorder.statistics.values["q"][:1].expand(3))


def test_weighted_means_converge_as_one_over_the_root_of_the_particles() -> None:
    pipe, handle = attached(0.5, "DDIMScheduler", return_all_particles=True)
    weights, means = exact(0.5).log_weights.softmax(0), exact(0.5).means[:, 0]
    counts, errors = [8, 32, 128], []
    for handle.particles in counts:
        points = draw(pipe, 250).reshape(250, -1)
        assert handle.paths is not None
        assert handle.paths.log_weights is not None
        estimates = (handle.paths.log_weights.softmax(1) * points).sum(1)
        errors.append(float((estimates - weights @ means).square().mean().sqrt()))
    slope = math.log(errors[-1] / errors[0]) / math.log(counts[-1] / counts[0])
    assert -0.65 < slope < -0.35


def test_one_particle_is_plain_sampling_bit_for_bit() -> None:
    pipe, handle = attached(0.5)
    plain = draw(pipe, 5)
    handle.particles = 4
    assert not torch.equal(draw(pipe, 5), plain)
    handle.particles = 1
    assert torch.equal(draw(pipe, 5), plain)
    handle.remove()
    pipe, handle = attached(0.5, particles=1)
    assert torch.equal(draw(pipe, 5), plain)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_weights_are_one_at_the_reference_and_the_anchor(lam: float, caplog: pytest.LogCaptureFixture) -> None:
    pipe, handle = attached(lam, particles=4)
    with caplog.at_level(logging.WARNING):
        draw(pipe, 3)
        draw(pipe, 3)
    assert caplog.text.count("particles correct nothing there") == 1  # told once
    paths = handle.paths
    assert paths is not None
    assert paths.log_weights is not None
    assert (paths.log_weights == 0).all()
    assert paths.ess is not None
    torch.testing.assert_close(paths.ess, torch.full((3,), 4.0, dtype=torch.float64))
    assert paths.ancestors is not None
    assert paths.ancestors.tolist() == [4, 4, 4]


def test_permuting_particles_changes_nothing() -> None:
    increments = torch.randn(3, 6, generator=Generator().manual_seed(0), dtype=torch.float64)
    order = torch.randperm(6, generator=Generator().manual_seed(1))
    one, other = Particles(seeded(3), 6), Particles(seeded(3), 6)
    one.add_log_weights(increments.flatten())
    other.add_log_weights(increments[:, order].flatten())
    torch.testing.assert_close(other.log_weights, one.log_weights[:, order])
    torch.testing.assert_close(other.ess(), one.ess())
    frequency = torch.zeros(2, 3, 6)
    for trial in range(400):
        for place, given in enumerate((increments, increments[:, order])):
            own = Particles([Generator().manual_seed(9 * trial + image) for image in range(3)], 6)
            own.add_log_weights(given.flatten())
            frequency[place].flatten()[own.sample_final()] += 1 / 400
    torch.testing.assert_close(frequency[0].double(), increments.softmax(1), atol=0.09, rtol=0)
    torch.testing.assert_close(frequency[1], frequency[0][:, order], atol=0.12, rtol=0)


def test_survivors_are_as_many_as_their_weight_says_and_weights_start_anew() -> None:
    particles = Particles(seeded(40), 8)
    log_weights = 2 * torch.randn(40, 8, generator=Generator().manual_seed(2), dtype=torch.float64)
    log_weights[0] = 0.0  # needs no resampling
    particles.add_log_weights(log_weights.flatten())
    low = particles.ess() < 4
    rows = particles.resample()
    assert rows is not None
    parents = rows.reshape(40, 8) - 8 * torch.arange(40)[:, None]
    copies = torch.stack([row.bincount(minlength=8) for row in parents])
    expected = 8 * log_weights.softmax(1)
    assert 5 < low.sum() < 39
    assert ((copies - expected).abs() < 1)[low].all()
    assert torch.equal(parents[~low], torch.arange(8).expand(int((~low).sum()), 8))
    assert (particles.log_weights[low] == 0).all()
    assert torch.equal(particles.log_weights[~low], log_weights[~low])
    assert torch.equal(particles.n_ancestors(), (copies > 0).sum(1))


def test_what_a_multistep_sampler_remembers_goes_with_its_rows() -> None:
    def stepped(index: Tensor | None) -> Tensor:
        scheduler = diffusers.DPMSolverMultistepScheduler()
        scheduler.set_timesteps(6)
        x = torch.randn(4, 3, generator=Generator().manual_seed(0))
        for place, t in enumerate(scheduler.timesteps):
            if place == 3 and index is not None:
                x = x[index]
                permute_solver_state(scheduler, index)
            x = scheduler.step(0.3 * x, t, x, return_dict=False)[0]
        return x

    index = torch.tensor([2, 2, 0, 3])
    torch.testing.assert_close(stepped(index), stepped(None)[index])


def test_each_image_has_its_own_lam_noise_and_survivors_in_any_batch() -> None:
    pipe: Any = ZOO["sd"].build()
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    prompts, lams = ["a red circle", "a blue square"], [0.3, 0.6, 0.7, 1.4]
    with deradiff.realign(pipe, anchor_of(pipe.unet, strength=0.1), lams, particles=3) as handle:

        def images(prompt: Any, rows: list[Generator], **more: Any) -> Tensor:
            given = {"num_inference_steps": 6, "guidance_scale": 2.0, "output_type": "latent", **more}
            return pipe(prompt, generator=rows, **given).images

        together = images(prompts, seeded(4), num_images_per_prompt=2)
        weights = handle.paths.log_weights if handle.paths else None
        for place, lam in enumerate(lams):
            handle.lam = lam
            alone = images(prompts[place // 2], [Generator().manual_seed(place)])
            torch.testing.assert_close(alone[0], together[place], atol=1e-3, rtol=1e-3)
            assert weights is not None
            assert handle.paths is not None
            torch.testing.assert_close(handle.paths.log_weights[0], weights[place], atol=1e-2, rtol=1e-2)  # pyright: ignore


def test_all_particles_come_back_where_asked() -> None:
    pipe, handle = attached(0.5, particles=4)
    one = draw(pipe, 3)
    handle.return_all_particles = True
    every = draw(pipe, 3)
    assert handle.paths is not None
    assert every.shape == (12, 1)
    assert torch.equal(every[handle.paths.rows], one)


def test_particles_start_apart_and_generators_stay_as_they_were() -> None:
    own = Generator().manual_seed(3)
    before = own.get_state()
    children = fork_generators(own, 3)
    assert torch.equal(own.get_state(), before)
    noises = torch.stack([torch.randn(4, generator=generator) for generator in (own, *children)])
    assert len(noises.unique(dim=0)) == 4
    again = torch.stack(
        [torch.randn(4, generator=generator) for generator in fork_generators(Generator().manual_seed(3), 3)]
    )
    assert torch.equal(again, noises[1:])
    pipe, handle = attached(0.5, "DDIMScheduler", particles=3, return_all_particles=True)
    points = pipe(2, 4, generator=seeded(2)).images
    assert len(points.unique(dim=0)) == 6
    handle.particles = 1
    assert torch.equal(pipe(2, 4, generator=seeded(2)).images, points[::3])  # the first starts from the image's own


def test_tuples_and_flags_are_chosen_from_as_images_are() -> None:
    pipe: Any = ZOO["sd"].build()
    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5, particles=3):
        images, flags = pipe(["a", "b"], num_inference_steps=2, output_type="pil", return_dict=False)
    assert len(images) == 2
    assert flags is None
    picked = select_rows((list("abcdef"), torch.arange(6), None, "abcdef"), 6, torch.tensor([1, 5]))
    assert picked[0] == ["b", "f"]
    assert picked[1].tolist() == [1, 5]
    assert picked[2:] == (None, "abcdef")  # a text is no row an image


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"particles": 0}, "particles is 0; expected a whole number"),
        ({"particles": 2.5}, "particles is 2.5"),
        ({"particles": True}, "particles is True"),
        ({"particles": 4, "policy": deradiff.Reuse(2)}, "leave policy= out"),
        ({"particles": 4, "policy": deradiff.Weights()}, "leave policy= out"),
    ],
)
def test_what_particles_can_not_do_is_refused_and_nothing_is_attached(change: dict[str, Any], told: str) -> None:
    pipe: Any = ZOO["sd"].build()
    with pytest.raises(deradiff.RealignError, match=told):
        deradiff.realign(pipe, anchor_of(pipe.unet), 0.5, **change)
    deradiff.realign(pipe, anchor_of(pipe.unet), 0.5).remove()


def test_embeddings_and_several_images_a_prompt_and_texts_beside_them() -> None:
    pipe: Any = ZOO["sd"].build()
    embeds = pipe.encode_prompt(["a", "b"], torch.device("cpu"), 1, False)[0]
    settings = {"num_inference_steps": 2, "output_type": "latent", "num_images_per_prompt": 2}
    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5, particles=2):
        assert len(pipe(prompt_embeds=embeds, negative_prompt_embeds=embeds, **settings).images) == 4
    video = ZOO["animatediff"]
    pipe = video.build()
    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5, particles=2):
        frames = pipe("a", negative_prompt="b", num_frames=3, num_inference_steps=2, output_type="latent").frames
    assert len(frames) == 1


@pytest.mark.parametrize(("generator", "told"), [(seeded(1), "list of 1"), (tuple(seeded(2)), "tuple of 2")])
def test_generators_that_are_not_one_an_image_are_refused(generator: Any, told: str) -> None:
    pipe: Any = ZOO["sd"].build()
    words = f"got a {told} generators for 2 images"
    with (
        deradiff.realign(pipe, anchor_of(pipe.unet), 0.5, particles=2),
        pytest.raises(deradiff.RealignError, match=words),
    ):
        pipe(["a", "b"], generator=generator, num_inference_steps=2)


def test_calls_that_particles_can_not_serve_are_refused_and_the_pipeline_goes_on() -> None:
    pipe: Any = ZOO["sd"].build()
    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5, particles=2) as handle:
        settings = {"prompt": "a", "num_inference_steps": 2, "output_type": "latent"}
        with pytest.raises(deradiff.RealignError, match="1 images of 2 particles start from 2 noises of their own"):
            pipe(**settings, latents=torch.randn(1, 4, 8, 8))
        handle.policy = deradiff.Reuse(2)
        with pytest.raises(deradiff.RealignError, match="leave policy= out"):
            pipe(**settings)
        handle.policy = deradiff.Exact()
        step = pipe.scheduler.step
        assert len(pipe(**settings).images) == 1
        assert pipe.scheduler.step == step


def test_several_anchors_take_no_particles() -> None:
    pipe: Any = ZOO["sd"].build()
    anchors = {"one": anchor_of(pipe.unet), "two": anchor_of(pipe.unet, seed=2)}
    with deradiff.realign(pipe, anchors, {"one": 0.2, "two": 0.2}, particles=2) as handle:
        with pytest.raises(deradiff.RealignError, match="one anchor and one scheduler"):
            pipe("a", num_inference_steps=2)
        handle.particles = 1
        with handle.recording():
            pipe("a", num_inference_steps=2, output_type="latent")
        assert handle.paths is not None
        assert handle.paths.path_kl is None

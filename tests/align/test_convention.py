"""What beta means: conversions between conventions, and the KL weight against chains worked step by step."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from deradiff.align import Convention, convert_beta
from deradiff.align.convention import PUBLISHED, chain_kl_weight, get_convention
from deradiff.errors import AlignError

ELEMENTS = 4 * 64 * 64


def test_published_conventions_by_hand() -> None:
    # half the mean, the mean, and the sum: of errors summed over the latent
    assert PUBLISHED["sdxl-script"].multiplier(ELEMENTS) == pytest.approx(0.5 / ELEMENTS)
    assert PUBLISHED["sd15-script"].multiplier(ELEMENTS) == pytest.approx(1 / ELEMENTS)
    assert Convention("sum", 1.0, 6.2).multiplier(ELEMENTS) == 6.2
    assert convert_beta(5000, PUBLISHED["sdxl-script"], PUBLISHED["sd15-script"], ELEMENTS) == pytest.approx(2500)


def test_a_converted_beta_trains_the_same_model() -> None:
    kl = get_convention("kl", DDPMScheduler())
    for source in PUBLISHED.values():
        beta = convert_beta(2000, source, kl, ELEMENTS)
        assert beta * kl.multiplier(ELEMENTS) == pytest.approx(2000 * source.multiplier(ELEMENTS))
        assert convert_beta(beta, kl, source, ELEMENTS) == pytest.approx(2000)


def test_unknown_names_are_reported() -> None:
    with pytest.raises(AlignError, match="called 'kto'; choose from kl, sdxl-script, sd15-script"):
        get_convention("kto", DDPMScheduler())


def test_kl_weight_is_the_kl_of_two_ddpm_chains_one_apart() -> None:
    """Gaussian steps of equal variance v differ in KL by |mean difference|² / 2 v."""
    scheduler = DDPMScheduler(num_train_timesteps=50, beta_start=0.001, beta_end=0.1, clip_sample=False)
    scheduler.set_timesteps(50)
    x_t, total = torch.zeros(1, 1, 1, 1), 0.0
    for t in range(1, 50):
        means = [_posterior_mean(scheduler, eps, t, x_t) for eps in (0.0, 1.0)]
        total += (means[0] - means[1]) ** 2 / (2 * float(scheduler.betas[t]))
    assert chain_kl_weight(scheduler) == pytest.approx(total, rel=1e-4)


def _posterior_mean(scheduler: DDPMScheduler, eps: float, t: int, x_t: torch.Tensor) -> float:
    """Of Ho et al. 2020, equation 11."""
    alpha, alpha_bar = float(scheduler.alphas[t]), float(scheduler.alphas_cumprod[t])
    return float(x_t.mean() - (1 - alpha) / (1 - alpha_bar) ** 0.5 * eps) / alpha**0.5


def test_forms_differ_by_the_scale_between_their_predictions() -> None:
    """At one noise level a difference of v is alpha times one of eps, of x_0 alpha / sigma times."""
    settings = {"num_train_timesteps": 2, "trained_betas": [0.3, 0.3]}
    eps = chain_kl_weight(DDPMScheduler(**settings))
    alpha = 0.7
    assert chain_kl_weight(DDPMScheduler(**settings, prediction_type="v_prediction")) == pytest.approx(eps * alpha**2)
    x_0 = chain_kl_weight(DDPMScheduler(**settings, prediction_type="sample"))
    assert x_0 == pytest.approx(eps * alpha**2 / (1 - alpha**2))


def test_flows_and_zero_terminal_snr_have_one_too() -> None:
    flow = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    # integral of (1 - s)² (1 / s + 1 / (1 - s)) ds from .001 to 1, by hand: -log s - 1 + s, at s = .001
    assert chain_kl_weight(flow) == pytest.approx(6.9078 - 0.999, rel=0.1)
    zero = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert 0 < chain_kl_weight(zero) < 100

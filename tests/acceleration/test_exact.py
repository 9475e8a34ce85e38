"""The exact policy equals the plain hook on pipelines of every kind, and calls no network that has no weight."""

from typing import Any

import pytest
import torch
from tests.realignment import loras
from tests.realignment.pipelines import known, near, replaced, subject

import deradiff
from deradiff.acceleration import Adaptive, Budget, Exact, Reuse
from deradiff.errors import RealignError
from deradiff.realignment import sweeping

from .sweeps import IMAGES, LAMS, attach, sweep, through

# By how many calls a step makes of the denoiser.
STACKED = ("sd", "sdxl", "instruct_pix2pix", "sd_controlnet", "sd_ip_adapter", "sd_pag", "dit", "pixart_alpha")
STACKED += ("sd3", "flux", "hunyuandit", "ltx", "cogvideox")
BY_BRANCH = ("cogview4", "qwen_image", "lumina2", "flux_kontext", "wan_2_2")
CALLS_A_STEP = [(name, 1) for name in STACKED] + [(name, 2) for name in BY_BRANCH]
WHOLE = {"z_image": "lists", "kandinsky": "variance", "flux2_klein_kv": "key-value", "animatediff": "frames"}


def sweep_counting(it: Any) -> tuple[torch.Tensor, int]:
    """A plain run, and its calls of the denoisers."""
    calls: list[int] = []
    hooks = [module.register_forward_pre_hook(lambda *_: calls.append(1)) for module in it.denoisers.values()]
    images = sweep(it)
    for hook in hooks:
        hook.remove()
    return images, len(calls)


@pytest.mark.parametrize(("name", "first"), CALLS_A_STEP)
def test_it_equals_the_plain_hook_and_counts_what_has_weight(name: str, first: int) -> None:
    it = known(name)
    reference, calls = sweep_counting(it)
    with attach(it) as handle:
        plain = sweep(it)
        got, budget = through(handle, Exact(), lambda: sweep(it))
        assert near(got, plain)
        # the first step once for all lams, then lam = 0 and 1 through one network and 0.5 through two
        assert budget.nfe == IMAGES * (2 * first + 4 * (calls - first))
        again, _ = through(handle, Reuse(1), lambda: sweep(it))
        assert near(again, plain)
    with replaced(it.pipe, it.anchors):
        aligned = sweep(it)
    for image in range(IMAGES):
        assert near(got[3 * image], reference[3 * image])
        assert near(got[3 * image + 2], aligned[3 * image + 2])
    assert not near(got[1], reference[1])


@pytest.mark.parametrize("name", WHOLE)
def test_calls_that_cannot_be_taken_apart_run_whole_or_are_refused(name: str) -> None:
    it = known(name)
    _, calls = sweep_counting(it)
    with attach(it) as handle:
        plain = sweep(it)
        got, budget = through(handle, Exact(), lambda: sweep(it))
        assert torch.equal(got, plain)
        assert budget.nfe == 2 * IMAGES * len(LAMS) * calls
        for policy in (Reuse(2), Adaptive(0.1)):
            with pytest.raises(RealignError, match=f"{WHOLE[name]}.*use policy=Exact"):
                through(handle, policy, lambda: sweep(it))
        assert torch.equal(sweep(it), plain)


def test_guidance_may_have_one_scale_a_frame() -> None:
    it = known("svd")
    with attach(it, (0.0, 1.5)) as handle:
        plain = sweep(it, (0.0, 1.5))
        assert near(through(handle, Exact(), lambda: sweep(it, (0.0, 1.5)), lams=2)[0], plain)


@pytest.mark.parametrize("ensemble", ["toggle", "batched"])
def test_lora_anchors_go_through_it_too(ensemble: Any) -> None:
    it = subject("sd")
    loras.add(it.pipe.unet, "mine")
    with attach(it, anchors="mine", ensemble=ensemble) as handle:
        plain = sweep(it)
        got, budget = through(handle, Exact(), lambda: sweep(it))
        assert near(got, plain)
        assert not near(got[1], got[0])
        assert budget.nfe == IMAGES * (2 + 4 * (len(it.pipe.scheduler.timesteps) - 1))


def test_lams_of_any_number_and_index() -> None:
    it = known("sd")
    for lams in ((0.0,), (1.0,), (2.0,), (0.3, 1.5), (-0.5, 0.0, 0.2, 0.9, 1.0, 1.3)):
        with attach(it, lams) as handle:
            plain = sweep(it, lams)
            got, _ = through(handle, Exact(), lambda lams=lams: sweep(it, lams), lams=len(lams))
            assert near(got, plain)


class Small:
    """Memory for some rows only."""

    def __init__(self, module: torch.nn.Module, rows: int) -> None:
        self.rows, self.sizes = rows, list[int]()
        self.hook = module.register_forward_pre_hook(self)

    def __call__(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        self.sizes.append(len(args[0]))
        if len(args[0]) > self.rows:
            raise torch.OutOfMemoryError(f"{len(args[0])} rows")


@pytest.mark.parametrize("policy", [Exact(), Reuse(2), Adaptive(0.05)])
def test_out_of_memory_halves_what_runs_at_once_and_goes_on(policy: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = subject("sd")
    with attach(it) as handle:
        roomy, asked = through(handle, policy, lambda: sweep(it))
        small = Small(it.pipe.unet, rows=4)  # two images with guidance
        got, budget = through(handle, policy, lambda: sweep(it), limit=6)
        small.hook.remove()
        assert near(got, roomy)
        assert budget.nfe == asked.nfe
        assert budget.limit < 3
        assert max(small.sizes) <= 2 * 6
        assert max(small.sizes[small.sizes.index(max(small.sizes)) + 4 :]) <= 4
        assert "out of memory" in caplog.text
        plain = sweep(it)
        hook = it.pipe.unet.register_forward_pre_hook(Small(torch.nn.Identity(), rows=1))
        with pytest.raises(RealignError, match="one image alone does not fit"):
            through(handle, policy, lambda: sweep(it))
        hook.remove()
        assert torch.equal(sweep(it), plain)


def test_other_errors_of_a_network_pass() -> None:
    it = subject("sd")

    def fail(*_: Any) -> None:
        raise RuntimeError("no such layer")

    hook = it.pipe.unet.register_forward_pre_hook(fail)
    with attach(it) as handle, pytest.raises(RuntimeError, match="no such layer"):
        through(handle, Exact(), lambda: sweep(it))
    hook.remove()


def test_a_sweep_gives_back_the_policy_and_the_budget_that_were_there() -> None:
    it = known("sd")
    with attach(it, policy=Reuse(3)) as handle:
        before = sweep(it, num_inference_steps=8)
        through(handle, Exact(), lambda: sweep(it))
        assert torch.equal(sweep(it, num_inference_steps=8), before)
        budget = Budget()
        with sweeping(handle, 3, Exact(), budget), sweeping(handle, 3, Reuse(3), Budget()):
            sweep(it)
        assert budget.nfe == 0


def test_only_the_exact_policy_takes_several_anchors_and_none_mixed_weights() -> None:
    it = known("sd")
    both = {"a": it.anchors["unet"], "b": it.anchors["unet"]}
    with deradiff.realign(it.pipe, both, lam={"a": 0.5, "b": 0.5}) as handle:
        with pytest.raises(RealignError, match="one anchor"):
            handle.policy = Reuse(2)
        plain = it.run()
        with pytest.raises(RealignError, match="one anchor"):
            through(handle, Reuse(2), lambda: it.run())
        assert torch.equal(it.run(), plain)
        assert torch.equal(through(handle, Exact(), lambda: it.run(), lams=1)[0], plain)
    with deradiff.realign(it.pipe, it.anchors, policy=deradiff.Weights()) as handle:
        for policy in (Exact(), Reuse()):
            with pytest.raises(RealignError, match="no other policy can save"):
                handle.policy = policy
    with pytest.raises(RealignError, match="leave ensemble='toggle' out"):
        deradiff.realign(it.pipe, it.anchors, ensemble="toggle", policy=deradiff.Weights())
    assert torch.equal(it.run(), it.plain)

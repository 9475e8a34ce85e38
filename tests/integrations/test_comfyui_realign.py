"""Realigned sampling in ComfyUI, against a fake of its patchers (what the real one does: `make test-comfyui`)."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.integrations.fake_comfy import Cond, Model, Patcher, sample_once
from torch import Tensor

IMAGES, RANK = 3, 2
Case = tuple[Patcher, Patcher, Callable[..., Patcher]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Of float32's values, which a LoRA's weights are read in, and of float64's rounding."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def conditionings(**extra: Any) -> list[list[Cond]]:
    """A positive and a negative one, which ComfyUI runs as rows of one call."""
    return [[{"context": noise(1, 4, seed=seed), **extra}] for seed in (1, 2)]


def predict(patcher: Patcher, sigma: float = 5.0, conds: list[list[Cond]] | None = None) -> Tensor:
    x, t = noise(IMAGES, 4, 5, 5), torch.full((IMAGES,), sigma, dtype=torch.float64)
    with torch.no_grad():
        return torch.stack(sample_once(patcher, x, t, conditionings() if conds is None else conds))


def lora_adapter(out: int, down: Tensor, alpha: float | None = 4.0, **changes: Any) -> SimpleNamespace:
    up = noise(out, RANK, *[1] * (down.ndim - 2), seed=out)
    return SimpleNamespace(name="lora", weights=(up, down, alpha, None, None, None), **changes)


def lora_patches() -> dict[Any, SimpleNamespace]:
    """On a convolution, on the middle third of the fused qkv and on the output."""
    return {
        "diffusion_model.conv.weight": lora_adapter(4, noise(RANK, 4, 3, 3, seed=7)),
        ("diffusion_model.qkv.weight", (0, 4, 4)): lora_adapter(4, noise(RANK, 4, seed=8)),
        "diffusion_model.out.weight": lora_adapter(4, noise(RANK, 12, seed=9), alpha=None),
    }


def merge(model: Model, patches: dict[Any, SimpleNamespace]) -> Model:
    """The LoRA in the weights: what ComfyUI's own loading makes."""
    for key, adapter in patches.items():
        name, part = (key, None) if isinstance(key, str) else key
        up, down, alpha, *_ = adapter.weights
        weight = model.get_parameter(name).data
        weight = weight if part is None else weight.narrow(*part)
        scale = 1.0 if alpha is None else alpha / RANK
        weight += scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    return model


@pytest.fixture(params=["lora", "two models"])
def case(request: pytest.FixtureRequest, pack: SimpleNamespace) -> Case:
    """Reference, aligned model, and what realigns the reference at given lams."""
    reference = Patcher(Model(0))
    if request.param == "two models":
        aligned = Patcher(Model(1))

        def realign(lams: list[float], start: float = 0.0, end: float = 1.0) -> Patcher:
            schedule = pack.lams.LamSchedule(tuple(lams), start, end)
            return pack.two_models.realign_with_model(reference, aligned, schedule)

        return reference, aligned, realign

    def realign_lora(lams: list[float], start: float = 0.0, end: float = 1.0) -> Patcher:
        layers = pack.lora.layers_from_patches(lora_patches(), reference.model)
        return pack.injection.realign_with_lora(reference, layers, pack.lams.LamSchedule(tuple(lams), start, end))

    return reference, Patcher(merge(Model(0), lora_patches())), realign_lora


def test_lam_0_is_the_reference_bit_for_bit_and_costs_one_call(case: Case) -> None:
    reference, _, realign = case
    expected = predict(reference)
    reference.model.n_calls = 0
    assert torch.equal(predict(realign([0.0])), expected)
    assert reference.model.n_calls == 1


def test_lam_1_is_the_aligned_model(case: Case) -> None:
    _, aligned, realign = case
    torch.testing.assert_close(predict(realign([1.0])), predict(aligned), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lam", [0.5, 1.5, -0.5])
def test_between_and_beyond_it_is_the_line_through_both(case: Case, lam: float) -> None:
    reference, aligned, realign = case
    expected = predict(reference) + lam * (predict(aligned) - predict(reference))
    torch.testing.assert_close(predict(realign([lam])), expected, rtol=1e-9, atol=1e-9)


def test_each_image_has_its_lam_under_every_conditioning_in_one_call_of_each_model(case: Case) -> None:
    reference, aligned, realign = case
    reference.model.n_calls = aligned.model.n_calls = 0
    together = predict(realign([0.0, 0.5, 1.0]))
    assert reference.model.n_calls + aligned.model.n_calls == 2  # the LoRA runs on the reference's model
    for index, lam in enumerate([0.0, 0.5, 1.0]):
        torch.testing.assert_close(together[:, index], predict(realign([lam]))[:, index], rtol=0, atol=0)


def test_another_number_of_lams_than_of_images_is_an_error(case: Case, pack: SimpleNamespace) -> None:
    with pytest.raises(pack.errors.RealignError, match="2 numbers and the batch 3 images"):
        predict(case[2]([0.0, 1.0]))


def test_outside_of_the_percent_range_the_reference_samples_alone(case: Case) -> None:
    reference, aligned, realign = case
    realigned = realign([1.0], 0.25, 0.75)
    for sigma, expected in ((9.0, reference), (5.0, aligned), (1.0, reference)):
        torch.testing.assert_close(predict(realigned, sigma), predict(expected, sigma), rtol=1e-9, atol=1e-9)


def test_the_model_is_left_as_it_was(case: Case) -> None:
    reference, _, realign = case
    state = {name: weight.clone() for name, weight in reference.model.state_dict().items()}
    before = predict(reference)
    predict(realign([0.5]))
    assert torch.equal(predict(reference), before)
    assert all(torch.equal(weight, state[name]) for name, weight in reference.model.state_dict().items())
    assert not any(module._forward_hooks for module in reference.model.modules())
    assert reference.model.current_patcher is None


def test_a_clone_of_a_realigned_model_is_realigned_too(case: Case) -> None:
    realigned = case[2]([0.5])
    assert torch.equal(predict(realigned.clone()), predict(realigned))


def test_a_controlnet_reaches_every_model(case: Case) -> None:
    reference, aligned, realign = case

    def conds() -> list[list[Cond]]:
        return conditionings(control=lambda: {"middle": [noise(2 * IMAGES, 4, 5, 5, seed=5)]})

    expected = (predict(reference, conds=conds()) + predict(aligned, conds=conds())) / 2
    torch.testing.assert_close(predict(realign([0.5]), conds=conds()), expected, rtol=1e-9, atol=1e-9)


def test_a_failing_call_leaves_nothing_switched_on(case: Case) -> None:
    reference, aligned, realign = case
    realigned = realign([1.0], 0.25, 0.75)
    failing = conditionings(control=lambda: {})  # the model looks for a key that isn't there
    with pytest.raises(KeyError):
        predict(realigned, conds=failing)
    assert aligned.model.current_patcher is None
    assert torch.equal(predict(realigned, 9.0), predict(reference, 9.0))


def test_several_aligned_models_are_mixed_against_one_reference(pack: SimpleNamespace) -> None:
    reference, others = Patcher(Model(0)), [Patcher(Model(1)), Patcher(Model(2))]
    realigned = reference
    for other, lam in zip(others, (0.5, 0.25), strict=True):
        realigned = pack.two_models.realign_with_model(realigned, other, pack.lams.LamSchedule((lam,)))
    base = predict(reference)
    expected = base + 0.5 * (predict(others[0]) - base) + 0.25 * (predict(others[1]) - base)
    torch.testing.assert_close(predict(realigned), expected, rtol=1e-9, atol=1e-9)


def test_several_loras_are_mixed_against_one_reference(pack: SimpleNamespace) -> None:
    reference = Patcher(Model(0))
    conv, rest = dict(list(lora_patches().items())[:1]), dict(list(lora_patches().items())[1:])
    realigned = reference
    for patches, lam in ((conv, 0.5), (rest, 0.25)):
        layers = pack.lora.layers_from_patches(patches, reference.model)
        realigned = pack.injection.realign_with_lora(realigned, layers, pack.lams.LamSchedule((lam,)))
    base, first, second = (predict(Patcher(merge(Model(0), patches))) for patches in ({}, conv, rest))
    torch.testing.assert_close(
        predict(realigned), base + 0.5 * (first - base) + 0.25 * (second - base), rtol=1e-9, atol=1e-9
    )


def test_a_clone_that_ejects_while_another_samples_takes_nothing_from_it(pack: SimpleNamespace) -> None:
    reference = Patcher(Model(0))
    layers = pack.lora.layers_from_patches(lora_patches(), reference.model)
    realigned = pack.injection.realign_with_lora(reference, layers, pack.lams.LamSchedule((1.0,)))
    expected = predict(realigned)
    leaving = realigned.clone()

    def eject_and_call(executor: Any, *args: Any, **kwargs: Any) -> Any:
        leaving.eject()
        return executor(*args, **kwargs)

    realigned.wrappers["apply_model"] = {"test": [eject_and_call], **realigned.wrappers["apply_model"]}
    assert torch.equal(predict(realigned), expected)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda reference: reference.clone(), "use Realign LoRA"),
        (lambda _: Patcher(Model(1, context_dim=8)), "context_dim is 8 and the reference's 4"),
        (lambda _: Patcher(Model(1, latent_format="sdxl")), "latent format is str and the reference's NoneType"),
    ],
)
def test_models_that_cannot_be_mixed_are_refused(pack: SimpleNamespace, other: Callable, words: str) -> None:
    reference = Patcher(Model(0))
    with pytest.raises(pack.errors.RealignError, match=words):
        pack.two_models.realign_with_model(reference, other(reference), pack.lams.LamSchedule((0.5,)))


def test_conditioning_with_hooks_is_refused_for_two_models(pack: SimpleNamespace) -> None:
    schedule = pack.lams.LamSchedule((0.5,))
    realigned = pack.two_models.realign_with_model(Patcher(Model(0)), Patcher(Model(1)), schedule)
    with pytest.raises(pack.errors.RealignError, match="carries hooks"):
        predict(realigned, conds=conditionings(hooks=object()))


@pytest.mark.parametrize(
    ("patches", "words"),
    [
        ({}, "No weight of this LoRA fits"),
        ({"diffusion_model.out.weight": SimpleNamespace(name="loha", weights=())}, 'by "loha"'),
        ({"diffusion_model.out.weight": ("diff", (torch.ones(4, 12),))}, 'by "diff"'),
        ({"diffusion_model.norm.weight": lora_adapter(4, noise(RANK, 4))}, "a LayerNorm"),
        ({"diffusion_model.out.bias": lora_adapter(4, noise(RANK, 4))}, "out.bias, no weight of a layer"),
        ({"diffusion_model.out.weight": lora_adapter(4, noise(RANK, 5))}, r"\(4, 2\), \(2, 5\).* maps 12 to 4"),
        ({"diffusion_model.conv.weight": lora_adapter(4, noise(RANK, 4, 1, 1))}, r"\(2, 4, 1, 1\) for .*conv"),
        (
            {
                "diffusion_model.out.weight": SimpleNamespace(
                    name="lora", weights=(noise(4, 2), noise(2, 12), 1, None, 1, None)
                )
            },
            "DoRA",
        ),
    ],
)
def test_loras_that_cannot_run_beside_a_layer_are_refused(pack: SimpleNamespace, patches: dict, words: str) -> None:
    with pytest.raises(pack.errors.RealignError, match=words):
        pack.lora.layers_from_patches(patches, Model(0))


@pytest.mark.parametrize("kernel", [1, 3])
def test_tucker_and_matrix_shapes_of_convolutions_are_what_they_are_merged(pack: SimpleNamespace, kernel: int) -> None:
    module = torch.nn.Conv2d(4, 6, kernel, stride=2, padding=1).double()
    up, down, mid = noise(6, 2), noise(2, 3, seed=1), noise(2, 2, kernel, kernel, seed=2)
    down = noise(2, 4 * kernel**2, seed=3)
    tucker_down = noise(2, 4, seed=4)
    x = noise(2, 4, 9, 9, seed=5)
    tucker = torch.einsum("or,rskl,si->oikl", up, mid, tucker_down)
    for one, weight in (((up, down, None), (up @ down).reshape(module.weight.shape)), ((up, tucker_down, mid), tucker)):
        adapter = SimpleNamespace(name="lora", weights=(*one[:2], None, one[2], None, None))
        model = torch.nn.ModuleDict({"layer": module})
        ((layer,),) = pack.lora.layers_from_patches({"layer.weight": adapter}, model).values()
        expected = torch.nn.functional.conv2d(x, module.weight + weight, module.bias, stride=2, padding=1)
        torch.testing.assert_close(layer.add_to(module(x), module, x), expected, rtol=1e-9, atol=1e-9)


def test_a_slice_of_columns_and_a_function_of_rows_are_those_of_the_merged_weight(pack: SimpleNamespace) -> None:
    module = torch.nn.Linear(6, 4).double()
    up, down, x = noise(4, 2), noise(2, 3, seed=1), noise(5, 6, seed=2)
    adapter = SimpleNamespace(name="lora", weights=(up, down, None, None, None, None))
    key = ("layer.weight", (1, 2, 3), lambda weight: weight.flip(0))
    ((layer,),) = pack.lora.layers_from_patches({key: adapter}, torch.nn.ModuleDict({"layer": module})).values()
    expected = module(x) + x[:, 2:5] @ (up @ down).flip(0).T
    torch.testing.assert_close(layer.add_to(module(x), module, x), expected)

"""The weights bake against realignment's own interpolation of weights, for every kind of anchor and layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.realignment import loras
from tests.zoo import ZOO

import deradiff
from deradiff import AnchorError, LamError, Weights
from deradiff.bake import LoraUpdate, bake, bake_weights, interpolate_weights, write_checkpoint, write_lora
from deradiff.bake.low_rank import LowRank
from deradiff.errors import BakeError

from .pipelines import PROMPTS, build, distance, full, latents, lora


@pytest.fixture
def pipe() -> Any:
    return build()


def interpolated(pipe: Any, aligned: Any, lam: Any) -> torch.Tensor:
    with deradiff.realign(pipe, aligned, lam, policy=Weights()):
        return latents(pipe)


def load_plainly(pipe: Any, folder: Path) -> torch.Tensor:
    """By diffusers itself, without us."""
    pipe.load_lora_weights(str(folder))
    images = latents(pipe)
    pipe.unload_lora_weights()
    return images


@pytest.mark.parametrize("format", ["diffusers", "kohya", "peft"])
@pytest.mark.parametrize("lam", [0.6, -0.5, 2.0])
def test_a_lora_baked_in_every_layout_is_the_interpolation(pipe: Any, tmp_path: Path, format: Any, lam: float) -> None:
    anchor = lora(pipe, tmp_path / "anchor")
    expected, before = interpolated(pipe, anchor, lam), latents(pipe)
    update = bake_weights(pipe, anchor, lam)
    assert torch.equal(latents(pipe), before)  # the pipe is left as it was
    path = write_lora(pipe, update, tmp_path / "baked", format, card={"lam": lam})
    with deradiff.realign(pipe, str(path), 1.0):
        assert distance(latents(pipe), expected) < 1e-5
    if format != "peft":
        assert distance(load_plainly(pipe, tmp_path / "baked"), expected) < 1e-5
    assert distance(before, expected) > 1e-3


def test_kohya_names_and_alphas_are_those_that_other_programs_read(pipe: Any, tmp_path: Path) -> None:
    update = bake_weights(pipe, lora(pipe, tmp_path / "anchor"), 1.0)
    state = load_file(write_lora(pipe, update, tmp_path / "baked", "kohya", card={}))
    expected = {
        f"lora_unet_{name.replace('.', '_')}.{part}"
        for name in update.layers
        for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert set(state) == expected
    assert all(float(value) == 2 for name, value in state.items() if name.endswith("alpha"))


def test_several_anchors_are_concatenated_and_truncated(pipe: Any, tmp_path: Path) -> None:
    anchors = {"one": lora(pipe, tmp_path / "one", seed=3), "two": lora(pipe, tmp_path / "two", seed=4)}
    lam = {"one": 0.7, "two": -0.4}
    update = bake_weights(pipe, anchors, lam)
    assert {layer.rank for layer in update.layers.values()} == {4}
    write_lora(pipe, update, tmp_path / "baked", card={})
    assert distance(load_plainly(pipe, tmp_path / "baked"), interpolated(pipe, anchors, lam)) < 1e-5
    smaller = bake_weights(pipe, anchors, lam, rank=2)
    assert {layer.rank for layer in smaller.layers.values()} == {2}
    dense = {name: layer.dense() for name, layer in update.layers.items()}
    lost = sum(float((smaller.layers[name].dense() - value).norm()) ** 2 for name, value in dense.items())
    assert smaller.error == pytest.approx((lost / sum(float(v.norm()) ** 2 for v in dense.values())) ** 0.5, rel=1e-3)


def test_a_full_anchor_becomes_a_checkpoint_or_a_lora_that_tells_what_it_lacks(pipe: Any, tmp_path: Path) -> None:
    anchor = full(pipe)
    expected = interpolated(pipe, anchor, 0.5)
    name, network = interpolate_weights(pipe, anchor, 0.5)
    write_checkpoint(pipe, name, network, tmp_path / "checkpoint", card={"lam": 0.5})
    with deradiff.realign(pipe, str(tmp_path / "checkpoint"), 1.0):
        assert distance(latents(pipe), expected) < 1e-5
    update = bake_weights(pipe, anchor, 0.5, energy=1.0)
    base, other = dict(pipe.unet.named_parameters()), dict(anchor.named_parameters())
    for layer, factors in list(update.layers.items())[:5]:
        change = 0.5 * (other[f"{layer}.weight"] - base[f"{layer}.weight"])
        torch.testing.assert_close(factors.dense(), change, rtol=1e-3, atol=1e-5)
    assert set(update.left_out) == {n for n in base if n.removesuffix(".weight") not in update.layers}
    assert bake_weights(pipe, anchor, 0.5, rank=1).error > update.error > 0  # biases and norms are lacking


def test_a_lora_can_be_baked_into_a_checkpoint(pipe: Any, tmp_path: Path) -> None:
    anchor = lora(pipe, tmp_path / "anchor")
    name, network = interpolate_weights(pipe, anchor, 0.6)
    write_checkpoint(pipe, name, network, tmp_path / "baked", card={})
    with deradiff.realign(pipe, str(tmp_path / "baked"), 1.0):
        assert distance(latents(pipe), interpolated_again(pipe, anchor)) < 1e-4


def interpolated_again(_: Any, anchor: str) -> torch.Tensor:
    """On a pipeline of its own: the first is realigned."""
    return interpolated(build(), anchor, 0.6)


def test_what_cannot_be_baked_is_said(pipe: Any, tmp_path: Path) -> None:
    anchor = lora(pipe, tmp_path / "anchor")
    with pytest.raises(BakeError, match="rank is 0; expected 1 or more"):
        bake_weights(pipe, anchor, 0.5, rank=0)
    with pytest.raises(BakeError, match=r"energy is 1\.5"):
        bake_weights(pipe, anchor, 0.5, energy=1.5)
    with pytest.raises(BakeError, match="one lam an anchor"):
        bake_weights(pipe, anchor, [0.5, 0.6])
    with pytest.raises(LamError, match="finite"):
        bake_weights(pipe, anchor, float("nan"))
    with pytest.raises(AnchorError):
        bake_weights(pipe, str(tmp_path / "nowhere"), 0.5)
    update = bake_weights(pipe, anchor, 0.0)
    with pytest.raises(BakeError, match="changes nothing"):
        write_lora(pipe, update, tmp_path / "baked", card={})
    with pytest.raises(BakeError, match="format is 'ckpt'"):
        write_lora(pipe, bake_weights(pipe, anchor, 1.0), tmp_path / "baked", "ckpt", card={})  # pyright: ignore[reportArgumentType]
    (tmp_path / "file").write_text("")
    with pytest.raises(BakeError, match="can't write"):
        write_lora(pipe, bake_weights(pipe, anchor, 1.0), tmp_path / "file", card={})
    loras.add(pipe.unet, "dora", {"to_q"})
    layer = next(module for module in pipe.unet.modules() if "dora" in getattr(module, "lora_A", {}))
    layer.lora_variant["dora"] = object()
    with pytest.raises(BakeError, match="DoRA"):
        bake_weights(pipe, "dora", 0.5)


def test_a_folder_of_something_else_receives_no_bake(pipe: Any, tmp_path: Path) -> None:
    anchor = Path(lora(pipe, tmp_path / "anchor"))
    weights = anchor / "pytorch_lora_weights.safetensors"
    before = weights.read_bytes()
    for given in (str(anchor), weights, {"one": anchor}):
        with pytest.raises(BakeError, match="holds the anchor, which the bake would replace"):
            bake(pipe, given, {"one": 0.5} if isinstance(given, dict) else 0.5, anchor, PROMPTS)
    assert weights.read_bytes() == before
    for file, what in (("run.json", "is a run"), ("model_index.json", "a pipeline"), ("checkpoint.pt", "a training")):
        (tmp_path / what).mkdir()
        (tmp_path / what / file).write_text("{}")
        with pytest.raises(BakeError, match=what):
            bake(pipe, anchor, 0.5, tmp_path / what, PROMPTS)
    with pytest.raises(BakeError, match="it is no folder"):
        bake(pipe, anchor, 0.5, weights / "below", PROMPTS)


def test_kohyas_layout_is_for_denoisers_whose_layers_it_names(tmp_path: Path) -> None:
    layers, parts = (
        {"to_q": LowRank(torch.ones(1, 2), torch.ones(2, 1))},
        ("alpha", "lora_down.weight", "lora_up.weight"),
    )
    for name, expected in (("flux", "lora_transformer_"), ("sd3", "lora_transformer_"), ("sdxl", "lora_unet_")):
        pipe: Any = ZOO[name].build()
        (component,) = ZOO[name].components
        path = write_lora(pipe, LoraUpdate(component=component, layers=layers), tmp_path / name, "kohya", card={})
        assert set(load_file(path)) == {f"{expected}to_q.{part}" for part in parts}
    pipe = ZOO["pixart_sigma"].build()
    with pytest.raises(BakeError, match="for a PixArtTransformer2DModel take the format diffusers"):
        write_lora(pipe, LoraUpdate(component="transformer", layers=layers), tmp_path / "x", "kohya", card={})

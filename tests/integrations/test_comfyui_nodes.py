"""What the nodes ask for, say and write."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.integrations.fake_comfy import Model, Patcher
from torch import Tensor

EXAMPLES = Path(__file__).parents[2] / "integrations" / "comfyui" / "example_workflows"


@pytest.mark.parametrize(
    ("text", "lams"), [("0.5", (0.5,)), ("0, 0.5,1", (0, 0.5, 1)), (0.25, (0.25,)), (2, (2,)), (" -1e-1 ", (-0.1,))]
)
def test_lams_are_numbers_with_commas(pack: SimpleNamespace, text: str | float, lams: tuple[float, ...]) -> None:
    assert pack.lams.parse_lams(text) == lams


@pytest.mark.parametrize(("text", "words"), [("0, x", '"x" in "0, x"'), ("0,,1", '""'), ("", '""'), ("nan", "finite")])
def test_other_texts_are_errors_that_show_how(pack: SimpleNamespace, text: str, words: str) -> None:
    with pytest.raises(pack.errors.RealignError, match=words) as error:
        pack.lams.parse_lams(text)
    assert '"0, 0.5, 1"' in str(error.value)


def nodes_of(pack: SimpleNamespace) -> list[Any]:
    """In a thread of its own: a browser's tests leave an event loop running in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, pack.nodes.DeradiffExtension().get_node_list()).result()


def test_no_output_shares_an_id_with_an_input(pack: SimpleNamespace) -> None:
    nodes = nodes_of(pack)
    schemas = [node.define_schema() for node in nodes]
    assert len({schema.node_id for schema in schemas}) == 5
    for schema in schemas:
        ids = [port.id for port in (*schema.inputs, *schema.outputs) if port.id is not None]
        assert len(set(ids)) == len(ids)


def test_examples_name_the_inputs_and_outputs_that_the_nodes_have(pack: SimpleNamespace) -> None:
    nodes = nodes_of(pack)
    schemas = {schema.node_id: schema for schema in (node.define_schema() for node in nodes)}
    used = set()
    for path in EXAMPLES.glob("*.json"):
        for node in json.loads(path.read_text())["nodes"]:
            if schema := schemas.get(node["type"]):
                used.add(node["type"])
                assert [entry["name"] for entry in node["inputs"]] == [port.id for port in schema.inputs]
                assert [entry["name"] for entry in node["outputs"]] == [
                    port.id or port.display_name for port in schema.outputs
                ]
                assert len(node["widgets_values"]) == sum("widget" in entry for entry in node["inputs"])
    assert used == schemas.keys()


def test_the_two_kinds_of_realignment_do_not_share_a_reference(
    pack: SimpleNamespace, lora_files: dict[str, Any]
) -> None:
    lora_files["any"] = ({}, {})
    schedule = pack.lams.LamSchedule((0.5,))
    towards_model = pack.two_models.realign_with_model(Patcher(Model(0)), Patcher(Model(1)), schedule)
    with_lora = pack.injection.realign_with_lora(Patcher(Model(0)), {}, schedule)
    with pytest.raises(pack.errors.RealignError, match="already by the other kind"):
        pack.nodes.RealignLora.execute(towards_model, "any", "0.5", 0.0, 1.0)
    with pytest.raises(pack.errors.RealignError, match="already by the other kind"):
        pack.nodes.Realign.execute(with_lora, Patcher(Model(1)), "0.5", 0.0, 1.0)


def test_a_grid_repeats_each_image_with_its_noise_and_mask(pack: SimpleNamespace) -> None:
    latent = {"samples": torch.arange(2.0).reshape(2, 1, 1, 1), "noise_mask": torch.arange(2.0).reshape(2, 1, 1)}
    latents, per_image, each = pack.nodes.LamGrid.execute(latent, "0, 0.5, 1")
    assert latents["samples"].flatten().tolist() == latents["batch_index"] == [0, 0, 0, 1, 1, 1]
    assert latents["noise_mask"].flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert pack.lams.parse_lams(per_image) == (0, 0.5, 1) * 2
    assert [pack.lams.parse_lams(lam) for lam in each] == [(0,), (0.5,), (1,)]
    with pytest.raises(pack.errors.RealignError, match="twice"):
        pack.nodes.LamGrid.execute(latent, "0, 1, 1.0")


def columns_of(picture: Tensor, columns: int, width: int) -> list[float]:
    """The brightness in the middle of each column's last row."""
    return [round(float(picture[0, -20, 8 + column * (width + 8) + width // 2, 0]), 1) for column in range(columns)]


def test_the_grid_image_has_a_labelled_column_per_lam(pack: SimpleNamespace) -> None:
    shades = torch.tensor([0.0, 0.2, 0.4]).reshape(3, 1, 1, 1).expand(3, 64, 64, 3)
    batch = shades.repeat(2, 1, 1, 1)
    one_after_the_other = [shades[i : i + 1].repeat(2, 1, 1, 1) for i in range(3)]
    (in_batch,) = pack.nodes.LamGridImage.execute([batch], ["0, 0.5, 1, 0, 0.5, 1"])
    (in_list,) = pack.nodes.LamGridImage.execute(one_after_the_other, ["0", "0.5", "1"])
    assert torch.equal(in_batch, in_list)
    assert columns_of(in_batch, 3, 64) == [0.0, 0.2, 0.4]
    header = in_batch.shape[1] - 2 * (64 + 8)
    labels = in_batch[0, :header]
    assert in_batch.shape[2:] == (3 * 72 + 8, 3)
    assert all(labels[:, 8 + 72 * column : 72 + 72 * column].min() < 0.5 for column in range(3))
    with pytest.raises(pack.errors.RealignError, match="5 images and 3 lams"):
        pack.nodes.LamGridImage.execute([batch[:5]], ["0, 0.5, 1"])


@pytest.mark.parametrize("lam", [0.5, 0.0, 1.5])
def test_baking_scales_the_product_of_up_and_down(pack: SimpleNamespace, lam: float) -> None:
    weights = {
        "x.lora_up.weight": torch.ones(3, 2).half(),
        "x.lora_down.weight": torch.ones(2, 3),
        "x.alpha": torch.tensor(2.0),
    }
    baked = pack.bake.scale_lora(weights, lam)
    assert torch.equal(baked["x.lora_up.weight"].float() @ baked["x.lora_down.weight"], lam * 2 * torch.ones(3, 3))
    assert {name: (w.dtype, w.shape) for name, w in baked.items()} == {
        name: (w.dtype, w.shape) for name, w in weights.items()
    }


@pytest.mark.parametrize("other", ["x.hada_w1_a", "x.lokr_w1", "x.dora_scale", "x.diff", "x.lora_up.bias"])
def test_what_is_not_low_rank_is_not_baked(pack: SimpleNamespace, other: str) -> None:
    with pytest.raises(pack.errors.RealignError, match=f"holds {other}"):
        pack.bake.scale_lora({"x.lora_up.weight": torch.ones(1), other: torch.ones(1)}, 0.5)
    with pytest.raises(pack.errors.RealignError, match="no low-rank"):
        pack.bake.scale_lora({other: torch.ones(1)}, 0.5)


def test_a_baked_peft_file_is_one_that_load_lora_knows(
    pack: SimpleNamespace, lora_files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "comfy.utils.save_torch_file", lambda weights, path, metadata: save_file(weights, path, metadata), raising=False
    )
    settings = {"unet.lora_alpha": 8, "unet.use_rslora": False, "unet.alpha_pattern": {"to_k": 2}}
    weights = {
        f"unet.mid.attn.{name}.lora_{side}.weight": torch.ones(4, 4) for name in ("to_q", "to_k") for side in "AB"
    }
    lora_files["peft"] = (weights, {"lora_adapter_metadata": json.dumps(settings), "format": "pt"})
    (path,) = pack.nodes.BakeLora.execute("peft", 0.5, "loras/mine")
    saved = load_file(path)
    assert sorted(Path(path).parent.iterdir()) == [Path(path)]
    assert saved.keys() == {
        f"lora_unet_mid_attn_{name}.{part}"
        for name in ("to_q", "to_k")
        for part in ("lora_up.weight", "lora_down.weight", "alpha")
    }
    assert saved["lora_unet_mid_attn_to_q.alpha"] == 8
    assert saved["lora_unet_mid_attn_to_k.alpha"] == 2
    assert saved["lora_unet_mid_attn_to_q.lora_up.weight"].unique() == 0.5


def test_rank_stabilised_alpha_is_the_one_of_that_scale(pack: SimpleNamespace) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 3, "unet.use_rslora": True})}
    weights = pack.lora_file.add_peft_alphas({"unet.a.lora_B.weight": torch.ones(2, 16)}, metadata)
    assert float(weights["unet.a.alpha"]) / 16 == 3 / 4
    with pytest.raises(pack.errors.RealignError, match="not JSON"):
        pack.lora_file.add_peft_alphas(weights, {"lora_adapter_metadata": "{"})


def test_peft_names_of_a_unet_lead_to_its_weights(pack: SimpleNamespace) -> None:
    names = {"mid.attn.to_out.0.weight": "middle.to_out.0.weight", "mid.attn.to_out.0.bias": "middle.to_out.0.bias"}
    expected = "diffusion_model.middle.to_out.0.weight"
    assert pack.lora_file.peft_keys(names) == {"unet.mid.attn.to_out.0": expected, "mid.attn.to_out.0": expected}

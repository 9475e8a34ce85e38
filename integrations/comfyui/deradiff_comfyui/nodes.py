"""The nodes: what each asks for, in ComfyUI's V3 schema, and which function answers.

No output carries an id that an input has: ComfyUI would refuse the whole pack.
"""

# pyright: reportMissingImports=false

import os
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.utils
import folder_paths
from comfy_api.latest import ComfyExtension, io
from torch import Tensor

from . import injection, two_models
from .bake import scale_lora
from .errors import RealignError
from .grid import arrange_images, draw_grid, repeat_latent, shortest_period
from .lams import LamSchedule, parse_lams
from .lora import layers_from_patches
from .lora_file import PEFT_METADATA, add_peft_alphas, peft_keys, rename_for_load_lora

CATEGORY = "deradiff"
LAM_TOOLTIP = (
    "How much of the alignment is applied: 0 is the reference, 1 the aligned model, above 1 more than was trained. "
    'One number, or one per image of the batch, as in "0, 0.5, 1".'
)
LAMS_TOOLTIP = 'Numbers with commas between them, as in "0, 0.25, 0.5, 0.75, 1".'


def lam_inputs() -> list[io.Input]:
    """The widgets that the two realigning nodes share."""
    return [
        io.MultiType.Input(io.String.Input("lam", default="0.5", tooltip=LAM_TOOLTIP), [io.Float, io.Int]),
        io.Float.Input(
            "start_percent",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="The share of the steps after which realignment starts; before it the reference samples alone.",
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="The share of the steps after which realignment ends; from there the reference samples alone.",
        ),
    ]


def load_lora_file(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, PEFT's alphas among them, and metadata of a file in ComfyUI's loras folders."""
    path = folder_paths.get_full_path_or_raise("loras", name)
    weights, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    return add_peft_alphas(weights, metadata), metadata or {}


def read_patches(name: str, model: Any) -> dict[Any, Any]:
    """A LoRA's weights by the weights of the model that they change, as ComfyUI reads them."""
    weights, _ = load_lora_file(name)
    keys = peft_keys(comfy.utils.unet_to_diffusers(model.model_config.unet_config))
    keys |= comfy.lora.model_lora_keys_unet(model, {})
    return comfy.lora.load_lora(comfy.lora_convert.convert_lora(weights), keys)


class RealignLora(io.ComfyNode):
    """MODEL + LoRA + lam → MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DeradiffRealignLora",
            display_name="Realign LoRA",
            category=CATEGORY,
            description=(
                "Samples reference + lam (aligned - reference), where the aligned model is the reference with the LoRA "
                "at strength 1. At lam 0 the images are exactly the reference's; no weight is changed. Several of "
                "these nodes in a row mix their LoRAs against the one reference. Text encoders stay the reference's."
            ),
            inputs=[
                io.Model.Input("model", display_name="reference", tooltip="The model that the LoRA was trained on."),
                io.Combo.Input("lora_name", options=folder_paths.get_filename_list("loras"), tooltip="The alignment."),
                *lam_inputs(),
            ],
            outputs=[io.Model.Output(display_name="realigned")],
        )

    @classmethod
    def execute(
        cls, model: Any, lora_name: str, lam: str | float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        schedule = LamSchedule(parse_lams(lam), start_percent, end_percent)
        check_one_kind(model, two_models.KEY)
        layers = layers_from_patches(read_patches(lora_name, model.model), model.model)
        return io.NodeOutput(injection.realign_with_lora(model, layers, schedule))


class Realign(io.ComfyNode):
    """Two MODELs + lam → MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DeradiffRealign",
            display_name="Realign",
            category=CATEGORY,
            description=(
                "Samples reference + lam (aligned - reference) for two checkpoints of one architecture; both are held "
                "in memory and both are run at each step. Several of these nodes in a row mix their aligned models "
                "against the one reference."
            ),
            inputs=[
                io.Model.Input("reference", tooltip="The pretrained model."),
                io.Model.Input("aligned", tooltip="The model that was aligned from it, from a file of its own."),
                *lam_inputs(),
            ],
            outputs=[io.Model.Output(display_name="realigned")],
        )

    @classmethod
    def execute(
        cls, reference: Any, aligned: Any, lam: str | float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        schedule = LamSchedule(parse_lams(lam), start_percent, end_percent)
        check_one_kind(reference, injection.KEY)
        return io.NodeOutput(two_models.realign_with_model(reference, aligned, schedule))


class LamGrid(io.ComfyNode):
    """LATENT + lams → a batch, or a list of lams."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DeradiffLamGrid",
            display_name="Lam Grid",
            category=CATEGORY,
            description=(
                "The same image at several lams. As one batch: connect latents to the sampler and lam_per_image to a "
                "realigning node; all rows start from the same noise, and the sampler must be deterministic (euler, "
                "dpmpp_2m, ...), since others draw new noise for each row. One after the other, with any sampler: "
                "connect each_lam to the realigning node, and the sampler to its usual latent."
            ),
            inputs=[
                io.Latent.Input("latent"),
                io.String.Input("lams", default="0, 0.25, 0.5, 0.75, 1", tooltip=LAMS_TOOLTIP),
            ],
            outputs=[
                io.Latent.Output("latents", display_name="latents", tooltip="Each image once per lam, noise shared."),
                io.String.Output("lam_per_image", display_name="lam_per_image", tooltip="One lam per row of latents."),
                io.String.Output(
                    "each_lam", display_name="each_lam", is_output_list=True, tooltip="Runs what follows once per lam."
                ),
            ],
        )

    @classmethod
    def execute(cls, latent: dict, lams: str) -> io.NodeOutput:
        numbers = [str(lam) for lam in parse_lams(lams)]
        if len(set(numbers)) < len(numbers):
            raise RealignError(f'lams: "{lams}" holds a number twice; give each lam once.')
        repeated = repeat_latent(latent, len(numbers))
        return io.NodeOutput(repeated, ", ".join(numbers * len(latent["samples"])), numbers)


class LamGridImage(io.ComfyNode):
    """IMAGEs + lams → one labelled IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DeradiffLamGridImage",
            display_name="Lam Grid Image",
            category=CATEGORY,
            description="One picture with a column per lam, each labelled, and a row per image.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="A batch sampled at lam_per_image, or the images of each_lam."),
                io.String.Input("lams", force_input=True, tooltip="lam_per_image or each_lam of Lam Grid."),
            ],
            outputs=[io.Image.Output(display_name="grid")],
        )

    @classmethod
    def execute(cls, images: list, lams: list[str]) -> io.NodeOutput:
        numbers = [lam for text in lams for lam in parse_lams(text)]
        numbers = numbers[: shortest_period(numbers)]
        labels = [f"lam {lam:g}" for lam in numbers]
        return io.NodeOutput(draw_grid(arrange_images(images, len(labels)), labels))


class BakeLora(io.ComfyNode):
    """LoRA + lam → a LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DeradiffBakeLora",
            display_name="Bake LoRA",
            category=CATEGORY,
            description=(
                "Saves the LoRA with its strength scaled by lam, for Load LoRA at strength 1. This interpolates "
                "weights: it costs one call of the model per step instead of two, and is near to realignment, not "
                "equal to it."
            ),
            is_output_node=True,
            inputs=[
                io.Combo.Input("lora_name", options=folder_paths.get_filename_list("loras")),
                io.Float.Input("lam", default=0.5, min=-10.0, max=10.0, step=0.05, tooltip="The strength to keep."),
                io.String.Input(
                    "filename_prefix", default="loras/realigned", tooltip="Under ComfyUI's output folder; lam is added."
                ),
            ],
            outputs=[io.String.Output(display_name="path")],
        )

    @classmethod
    def execute(cls, lora_name: str, lam: float, filename_prefix: str) -> io.NodeOutput:
        weights, metadata = load_lora_file(lora_name)
        baked = rename_for_load_lora(scale_lora(weights, lam))
        metadata.pop(PEFT_METADATA, None)  # its alphas are tensors now
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            f"{filename_prefix}_lam{lam:g}", folder_paths.get_output_directory()
        )
        path = Path(folder) / f"{name}_{counter:05}_.safetensors"
        partial = path.with_suffix(".partial")
        about = {**metadata, "deradiff_lam": f"{lam:g}", "deradiff_source": lora_name}
        comfy.utils.save_torch_file(baked, str(partial), metadata=about)
        os.replace(partial, path)
        return io.NodeOutput(str(path), ui={"text": [str(path)]})


def check_one_kind(model: Any, other_key: str) -> None:
    """Refuses a model that the other realigning node has realigned: the two would not share a reference.

    Raises:
        RealignError: it was.
    """
    if any(other_key in wrappers for wrappers in model.wrappers.values()):
        raise RealignError(
            "This model is realigned already by the other kind of node, and Realign and Realign LoRA can't share a "
            "reference; use one kind for all aligned models."
        )


class DeradiffExtension(ComfyExtension):
    """The pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [RealignLora, Realign, LamGrid, LamGridImage, BakeLora]


async def comfy_entrypoint() -> DeradiffExtension:
    """What ComfyUI calls for the pack's nodes."""
    return DeradiffExtension()

"""Which quantised, offloaded and accelerated bases realign on this machine: a table of what works and why not.

    python examples/try_base.py
    python examples/try_base.py --model MODEL --anchor LORA --dtype bfloat16 --steps 2

Each base is loaded anew. It works if lam = 0 gives the images of the plain pipeline, and lam = 1 those of the pipeline
that has the LoRA, with images that differ; else the table has the error, or what differs.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, PipelineQuantizationConfig
from rich.console import Console
from rich.table import Table

import deradiff
from deradiff import testbed
from deradiff.devices import pick_device

Setup = Callable[[Any, str, torch.device], None]
TOLERANCE = 0.02  # of pixels in 0..1


def quantisations(dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Configs of quantisers whose package is installed, by name; None for the others."""

    def torchao() -> Any:
        from torchao.quantization import Int8WeightOnlyConfig

        return diffusers.TorchAoConfig(Int8WeightOnlyConfig())

    return {
        "bitsandbytes": lambda: diffusers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        ),
        "bitsandbytes 8 bit": lambda: diffusers.BitsAndBytesConfig(load_in_8bit=True),
        "torchao": torchao,
        "optimum quanto": lambda: diffusers.QuantoConfig(weights_dtype="int8"),
    }


def group_offload(kind: str) -> Setup:
    def setup(pipe: Any, part: str, device: torch.device) -> None:
        pipe.to(device)
        more = {"num_blocks_per_group": 1} if kind == "block_level" else {}
        getattr(pipe, part).enable_group_offload(
            onload_device=device, offload_device=torch.device("cpu"), offload_type=kind, **more
        )

    return setup


def of_denoiser(method: str, **settings: Any) -> Setup:
    """A method of the denoiser, called on the device."""

    def setup(pipe: Any, part: str, device: torch.device) -> None:
        pipe.to(device)
        getattr(getattr(pipe, part), method)(**settings)

    return setup


def of_pipeline(method: str, *, moved: bool = True) -> Setup:
    """A method of the pipeline; offloading moves it by itself."""

    def setup(pipe: Any, part: str, device: torch.device) -> None:
        if moved:
            pipe.to(device)
        getattr(pipe, method)()

    return setup


SETUPS: dict[str, Setup] = {
    "plain": lambda pipe, part, device: pipe.to(device),
    "model CPU offload": of_pipeline("enable_model_cpu_offload", moved=False),
    "sequential CPU offload": of_pipeline("enable_sequential_cpu_offload", moved=False),
    "group offload, leaves": group_offload("leaf_level"),
    "group offload, blocks": group_offload("block_level"),
    "layerwise casting": of_denoiser("enable_layerwise_casting", storage_dtype=torch.float8_e4m3fn),
    "torch.compile": of_denoiser("compile"),
    "compiled blocks": of_denoiser("compile_repeated_blocks"),
    "channels_last": of_denoiser("to", memory_format=torch.channels_last),
    "attention slicing": of_pipeline("enable_attention_slicing"),
    "VAE tiling": lambda pipe, part, device: (pipe.to(device), pipe.vae.enable_tiling())[0],
    "xformers": of_pipeline("enable_xformers_memory_efficient_attention"),
    "fused q, k, v": of_pipeline("fuse_qkv_projections"),
}


def images(pipe: Any, steps: int) -> torch.Tensor:
    """Two images, in 0..1."""
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    made = pipe(["a red circle", "a blue square"], num_inference_steps=steps, generator=seeds, output_type="np").images
    return torch.as_tensor(made).float()


def verdict(load: Callable[[], Any], anchor: str, steps: int) -> str:
    """Whether a base realigns."""
    pipe = load()
    plain = images(pipe, steps)
    with deradiff.realign(pipe, anchor, lam=0.0) as handle:
        reference = images(pipe, steps)
        handle.lam = 1.0
        aligned = images(pipe, steps)
    restored = images(pipe, steps)
    expected = load()
    expected.load_lora_weights(anchor)
    differences = {
        "lam = 0": float((reference - plain).abs().max()),
        "lam = 1": float((aligned - images(expected, steps)).abs().max()),
        "removal": float((restored - plain).abs().max()),
    }
    if wrong := [f"{name} differs by {value:.2g}" for name, value in differences.items() if not value <= TOLERANCE]:
        return f"WRONG: {', '.join(wrong)}"
    return "works" if float((aligned - plain).abs().max()) > TOLERANCE else "works, but the LoRA changes nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(testbed.pipeline_path()))
    parser.add_argument("--anchor", default=str(testbed.anchor_path("warmth-beta0.0125-seed0")), help="A LoRA.")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="Names of bases, as the table has them.")
    arguments = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    device, dtype = torch.device(pick_device("auto")), getattr(torch, arguments.dtype)
    loaded = DiffusionPipeline.from_pretrained(arguments.model, dtype=dtype)
    part = "transformer" if getattr(loaded, "transformer", None) is not None else "unet"

    def load(setup: Setup, config: Any = None) -> Any:
        more = {"quantization_config": PipelineQuantizationConfig(quant_mapping={part: config()})} if config else {}
        pipe = DiffusionPipeline.from_pretrained(arguments.model, dtype=dtype, **more)
        pipe.set_progress_bar_config(disable=True)
        setup(pipe, part, device)
        return pipe

    bases = {name: (setup, None) for name, setup in SETUPS.items()}
    bases |= {name: (SETUPS["plain"], config) for name, config in quantisations(dtype).items()}
    table = Table("base", "realign")
    for name, (setup, config) in bases.items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            if config and find_spec(name.split()[0]) is None:
                said = "not installed"
            else:
                said = verdict(
                    lambda setup=setup, config=config: load(setup, config), arguments.anchor, arguments.steps
                )
        except deradiff.errors.DeradiffError as error:
            said = f"refused: {error}"
        except Exception as error:  # noqa: BLE001  (of any package: the table says what)
            said = f"not on this machine: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
        table.add_row(name, said)
    Console().print(table)


if __name__ == "__main__":
    main()

"""The model in training, its frozen reference, and the anchor that is saved.

With a LoRA, one set of weights serves both models; full training holds two.
"""

import copy
import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deradiff.align.checkpoint import write_errors
from deradiff.align.settings import Settings
from deradiff.anchor.adapters import adapter_names, toggled
from deradiff.anchor.earlier_weights import describing, earlier_weights, kohya_name
from deradiff.anchor.lora_files import write_lora_file
from deradiff.anchor.module_tree import ModuleTree
from deradiff.errors import AlignError
from deradiff.writing import replacing_entries, write_whole

NAME = "deradiff"
AnchorFormat = Literal["diffusers", "kohya"]


class Policy:
    """A denoiser in training.

    Attributes:
        denoiser: the network.
        config: of its LoRA; None in full training.
        trained: trained parameters by name, in float32.
    """

    def __init__(self, denoiser: nn.Module, settings: Settings) -> None:
        self.denoiser: Any = denoiser
        self.config = None if settings.full else _add_lora(self.denoiser, settings)
        self.tree = ModuleTree(denoiser)
        self.frozen = copy.deepcopy(denoiser).requires_grad_(False) if settings.full else None
        if settings.full:
            self.denoiser.requires_grad_(True).float()
        else:
            cast_training_params(self.denoiser)
        self.trained = {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}
        if settings.gradient_checkpointing:
            self.denoiser.enable_gradient_checkpointing()

    @contextmanager
    def reference(self) -> Generator[nn.Module]:
        """Provide the network as it was before training, without gradients."""
        with torch.no_grad():
            if self.frozen is not None:
                yield self.frozen
                return
            self.tree.refresh()
            with toggled(self.tree, on=[], off=[NAME]):
                yield self.denoiser

    def state(self) -> dict[str, Tensor]:
        """The trained parameters by name, on the CPU."""
        return {name: parameter.detach().cpu() for name, parameter in self.trained.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Set the trained parameters by name."""
        for name, parameter in self.trained.items():
            parameter.copy_(state[name])


def _add_lora(denoiser: Any, settings: Settings) -> LoraConfig:
    if adapter_names(denoiser):
        raise AlignError(
            f"the pipeline has the adapters {', '.join(adapter_names(denoiser))} loaded; fuse them "
            "(pipe.fuse_lora()) or unload them first: the reference must have no adapters"
        )
    config = LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=list(settings.target_modules))
    denoiser.requires_grad_(False)
    torch.manual_seed(settings.seed)  # PEFT initialises a LoRA from the global generator
    try:
        denoiser.add_adapter(config, adapter_name=NAME)
    except ValueError as error:
        raise AlignError(f"no LoRA on the layers {', '.join(settings.target_modules)}: {error}") from error
    return config


def save_anchor(
    pipe: Any,
    component: str,
    policy: Policy,
    folder: Path,
    card: dict[str, Any],
    format: AnchorFormat = "diffusers",
) -> None:
    """Save an anchor, a LoRA or a checkpoint that plain diffusers loads, with its card.

    Files that hold the same already stay untouched.

    Args:
        pipe: the pipeline, whose scheduler goes with a checkpoint.
        component: name of the denoiser.
        policy: the trained model.
        folder: of the anchor; its weights and card are replaced.
        card: the anchor's description, JSON-able: metadata ``deradiff`` of a LoRA, deradiff.json of a checkpoint.
        format: of a LoRA; kohya's file is named after the folder.

    Raises:
        AlignError: the folder can't be written, or holds weights of another program.
    """
    obsolete = earlier_weights(folder, AlignError)
    with write_errors(folder), replacing_entries(folder, AlignError, obsolete) as part:
        if policy.config is None:
            policy.denoiser.save_pretrained(part / component)
            pipe.scheduler.save_pretrained(part / "scheduler")
            write_whole(part / "deradiff.json", json.dumps(card, indent=1).encode(), AlignError)
        else:
            layers = get_peft_model_state_dict(policy.denoiser, adapter_name=NAME)
            state = {name: layer.contiguous().cpu() for name, layer in layers.items()}
            write_lora_file(
                state, policy.denoiser, component, part, format, name=kohya_name(folder), card=card, error=AlignError
            )
        for entry in part.iterdir():  # a card beside weights that stay is the user's
            obsolete -= {entry.name, describing(entry.name)}
        for entry in [entry for entry in part.iterdir() if _holds_same(entry, folder / entry.name)]:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _holds_same(one: Path, other: Path) -> bool:
    """Whether two files or folders say the same; safetensors writes equal tensors and metadata in varying bytes."""
    if one.is_dir():
        names = {path.name for path in one.iterdir()}
        return (
            other.is_dir()
            and {path.name for path in other.iterdir()} == names
            and all(_holds_same(one / name, other / name) for name in names)
        )
    if not other.is_file():
        return False
    if one.suffix != ".safetensors":
        return one.read_bytes() == other.read_bytes()
    try:
        with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
            names = set(first.keys())
            return (
                first.metadata() == second.metadata()
                and names == set(second.keys())
                and all(torch.equal(first.get_tensor(name), second.get_tensor(name)) for name in names)
            )
    except SafetensorError:  # damaged since: it is written again
        return False

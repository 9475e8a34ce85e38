"""A small fake of the parts of ComfyUI that the nodes touch, with the traps of the real ones.

Wrappers nest as there; a patcher's clone shares the model and holds clones of its additional models; a model pops
ControlNet's outputs from their lists; rows of all conditionings go through the model in one call; a schema with an id
for both an input and an output is refused.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

APPLY_MODEL, CALC_COND_BATCH = "apply_model", "calc_cond_batch"


class Executor:
    """What a wrapper is given: calls the next wrapper, the model in the end."""

    def __init__(self, wrappers: Sequence[Callable], last: Callable, class_obj: object) -> None:
        self.wrappers, self.last, self.class_obj = wrappers, last, class_obj

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.wrappers:
            return self.last(*args, **kwargs)
        return self.wrappers[0](Executor(self.wrappers[1:], self.last, self.class_obj), *args, **kwargs)


def wrappers_in(options: dict[str, Any], kind: str) -> list[Callable]:
    registered = options.get("wrappers", {}).get(kind, {})
    return [wrapper for group in registered.values() for wrapper in group]


@dataclass
class PatcherInjection:
    inject: Callable[[Any], None]
    eject: Callable[[Any], None]


class CONST:
    """A flow's sampling."""


class Sampling:
    """Eps prediction; sigma falls from 10 to 0 with the percent of steps."""

    def percent_to_sigma(self, percent: float) -> float:
        return 10 * (1 - percent)


class Denoiser(nn.Module):
    """A linear layer, a fused qkv layer, a convolution and a ControlNet's output."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.qkv = nn.Linear(4, 12)
        self.out = nn.Linear(12, 4)
        self.norm = nn.LayerNorm(4)
        for weight in self.parameters():
            weight.data.copy_(torch.randn(weight.shape, generator=generator) / 4)

    def forward(self, x: Tensor, context: Tensor, control: dict[str, list[Tensor]] | None) -> Tensor:
        h = self.conv(x)
        if control is not None and control["middle"]:
            h = h + control["middle"].pop()
        h = self.norm(h.permute(0, 2, 3, 1)) + context[:, None, None]
        return self.out(torch.tanh(self.qkv(h))).permute(0, 3, 1, 2)


class Model(nn.Module):
    def __init__(self, seed: int, latent_format: object = None, **unet_config: Any) -> None:
        super().__init__()
        self.diffusion_model = Denoiser(seed).double()
        self.model_sampling = Sampling()
        self.model_config = SimpleNamespace(unet_config={"context_dim": 4} | unet_config)
        self.latent_format = latent_format
        self.current_patcher: Patcher | None = None
        self.n_calls = 0

    def apply_model(self, x: Tensor, t: Tensor, **c: Any) -> Tensor:
        wrappers = wrappers_in(c["transformer_options"], APPLY_MODEL)
        c = {"c_concat": None, "control": None} | c
        order = ("c_concat", "c_crossattn", "control", "transformer_options")
        return Executor(wrappers, self._apply_model, self)(x, t, *(c[name] for name in order))

    def _apply_model(
        self, x: Tensor, t: Tensor, c_concat: None, c_crossattn: Tensor, control: Any, options: Any
    ) -> Tensor:
        self.n_calls += 1
        return x - t.reshape(-1, 1, 1, 1) * self.diffusion_model(x, c_crossattn, control)


@dataclass(eq=False)
class Patcher:
    model: Model
    wrappers: dict[str, dict[str, list[Callable]]] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    injections: dict[str, list[PatcherInjection]] = field(default_factory=dict)
    additional_models: dict[str, list["Patcher"]] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=lambda: {"transformer_options": {}})
    is_injected: bool = False

    def clone(self) -> "Patcher":
        wrappers = {kind: {key: list(group) for key, group in keys.items()} for kind, keys in self.wrappers.items()}
        models = {key: [model.clone() for model in group] for key, group in self.additional_models.items()}
        return Patcher(
            self.model, wrappers, {}, dict(self.injections), models, {"transformer_options": {}}, self.is_injected
        )

    def is_clone(self, other: "Patcher") -> bool:
        return self.model is other.model

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)

    def get_wrappers(self, kind: str, key: str) -> list[Callable]:
        return self.wrappers.get(kind, {}).get(key, [])

    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Callable) -> None:
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, kind: str, key: str) -> None:
        self.wrappers.get(kind, {}).pop(key, None)

    def set_injections(self, key: str, injections: list[PatcherInjection]) -> None:
        self.injections[key] = injections

    def set_additional_models(self, key: str, models: list["Patcher"]) -> None:
        self.additional_models[key] = models

    def get_additional_models_with_key(self, key: str) -> list["Patcher"]:
        return self.additional_models.get(key, [])

    def inject(self) -> None:
        for injection in [one for group in self.injections.values() for one in group]:
            injection.inject(self)
        self.is_injected = True

    def eject(self) -> None:
        for injection in [one for group in self.injections.values() for one in group]:
            injection.eject(self)
        self.is_injected = False


Cond = dict[str, Any]


def calc_cond_batch(
    model: Model, conds: Sequence[Sequence[Cond] | None], x: Tensor, t: Tensor, options: dict
) -> list[Tensor]:
    wrappers = wrappers_in(options["transformer_options"], CALC_COND_BATCH)
    return Executor(wrappers, _calc_cond_batch, None)(model, conds, x, t, options)


def _calc_cond_batch(
    model: Model, conds: Sequence[Sequence[Cond] | None], x: Tensor, t: Tensor, options: dict
) -> list[Tensor]:
    assert model.current_patcher is not None
    given = [cond[0] for cond in conds if cond is not None]
    context = torch.cat([cond["context"].expand(len(x), -1) for cond in given])
    transformer_options = options["transformer_options"] | {"cond_or_uncond": list(range(len(given)))}
    n = len(given)
    output = model.apply_model(
        torch.cat([x] * n),
        torch.cat([t] * n),
        c_crossattn=context,
        control=given[0]["control"]() if "control" in given[0] else None,
        transformer_options=transformer_options,
    )
    return list(output.chunk(n))


def sample_once(patcher: Patcher, x: Tensor, t: Tensor, conds: Sequence[Sequence[Cond] | None]) -> list[Tensor]:
    """Denoised latents per conditioning, from loading to unloading."""
    additional = [model for group in patcher.additional_models.values() for model in group]
    for one in (patcher, *additional):
        one.inject()
    patcher.model.current_patcher = patcher
    try:
        options = {"transformer_options": {"wrappers": patcher.wrappers}}
        return calc_cond_batch(patcher.model, conds, x, t, options)
    finally:
        patcher.model.current_patcher = None
        for one in (patcher, *additional):
            one.eject()


def merge_nested_dicts(into: dict, other: dict, copy_dict1: bool = True) -> dict:
    assert not copy_dict1
    for kind, keys in other.items():
        for key, group in keys.items():
            into.setdefault(kind, {}).setdefault(key, []).extend(group)
    return into


def copy_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"transformer_options": dict(options["transformer_options"])}


class Port:
    """An input or output of a schema."""

    def __init__(
        self, id: "str | Port | None" = None, *_: object, display_name: str | None = None, **__: object
    ) -> None:
        self.id = id.id if isinstance(id, Port) else id
        self.display_name = display_name


class Schema:
    def __init__(self, node_id: str, inputs: list[Port], outputs: list[Port], description: str, **_: object) -> None:
        self.node_id, self.inputs, self.outputs, self.description = node_id, inputs, outputs, description


class NodeOutput(tuple):
    """What a node returns."""

    def __new__(cls, *results: Any, ui: object = None) -> "NodeOutput":
        return super().__new__(cls, results)


def modules(loras: dict[str, tuple[dict[str, Tensor], dict[str, str]]], output: str) -> dict[str, ModuleType]:
    """The fake under the names that the pack imports; ``loras`` are files' tensors and metadata."""
    found: dict[str, Any] = {
        "comfy": {},
        "comfy.patcher_extension": {
            "PatcherInjection": PatcherInjection,
            "WrappersMP": SimpleNamespace(APPLY_MODEL=APPLY_MODEL, CALC_COND_BATCH=CALC_COND_BATCH),
            "merge_nested_dicts": merge_nested_dicts,
        },
        "comfy.model_patcher": {"create_model_options_clone": copy_options},
        "comfy.model_sampling": {"CONST": CONST},
        "comfy.samplers": {"calc_cond_batch": calc_cond_batch},
        "comfy.lora": {},
        "comfy.lora_convert": {},
        "comfy.utils": {"load_torch_file": lambda path, **_: loras[path]},
        "folder_paths": {
            "get_filename_list": lambda kind: list(loras),
            "get_full_path_or_raise": lambda kind, name: name,
            "get_output_directory": lambda: output,
            "get_save_image_path": lambda prefix, folder: (folder, prefix.rsplit("/", 1)[-1], 1, "", prefix),
        },
        "comfy_api": {},
        "comfy_api.latest": {"ComfyExtension": object, "io": _io()},
    }
    result = {}
    for name, attributes in found.items():
        result[name] = ModuleType(name)
        result[name].__dict__.update(attributes)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(result[parent], child, result[name])
    return result


def _io() -> SimpleNamespace:
    kinds = ("Model", "Combo", "String", "Float", "Int", "MultiType", "Latent", "Image")
    ports = {kind: SimpleNamespace(Input=Port, Output=Port) for kind in kinds}
    return SimpleNamespace(ComfyNode=object, Schema=Schema, NodeOutput=NodeOutput, Input=Port, **ports)


def forget(prefix: str) -> None:
    for name in [name for name in sys.modules if name == prefix or name.startswith(prefix + ".")]:
        del sys.modules[name]

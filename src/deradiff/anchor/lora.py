"""A LoRA file (or LoHa, LoKr) onto a denoiser: the whole of it, or an error; never a part in silence.

Files name their layers in many ways: diffusers' and PEFT's, both at once, without the component's name, kohya's
underscores, and the original Stable Diffusion's block names.  What names the denoiser's own modules is read here; other
layouts go through the conversions that diffusers' pipelines bring.
"""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoHaConfig, PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from deradiff.anchor.adapters import adapter_layers, peft_metadata, remove_adapter, unchanged_otherwise
from deradiff.anchor.check import quantisation_of
from deradiff.anchor.module_tree import plain_name
from deradiff.errors import AnchorError
from deradiff.reading import parse_object

logger = logging.getLogger("deradiff")

_fresh_names = (f"deradiff_{number}" for number in itertools.count())

# What follows a module's name, as PEFT spells it
_SPELLINGS = {
    ".lora.down.weight": ".lora_A.weight",
    ".lora_down.weight": ".lora_A.weight",
    ".lora.up.weight": ".lora_B.weight",
    ".lora_up.weight": ".lora_B.weight",
    ".lora_A.default.weight": ".lora_A.weight",
    ".lora_B.default.weight": ".lora_B.weight",
}
_PART = re.compile(r"\.(lora_[AB]\.(weight|bias)|alpha|lora_magnitude_vector|dora_scale|hada_\w+|lokr_\w+)$")
_DOWN = (".lora_A.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a")  # one a layer
# what LyCORIS trains beside low-rank updates, and no adapter of PEFT holds
_FOREIGN = (".diff", ".diff_b", ".set_weight", ".set_bias", ".w_norm", ".b_norm", ".oft_blocks", ".oft_diag")
_PREFIXES = ("base_model.model.", "diffusion_model.", "model.")
_KOHYA = re.compile(r"^(lora|lycoris)_(unet|transformer)_")
_TEXT_ENCODER = re.compile(r"^(text_encoder(_\d)?|lora_te\d?|te\d?|text_model)[._]")

Weights = dict[str, Tensor]


def load_lora(pipe: Any, denoiser: nn.Module, path: Path, component: str) -> tuple[str, Callable[[], None]]:
    """Load a LoRA onto a denoiser under a name of its own, without touching what is active.

    What it holds for text encoders is left out: they run once, and can't be mixed step by step.

    Args:
        pipe: the pipeline, which brings conversions.
        denoiser: a component of it.
        path: of a safetensors file.
        component: the denoiser's name.

    Returns:
        The adapter's name, and the undo.

    Raises:
        AnchorError: it can't be read whole, isn't finite, or doesn't fit; the denoiser is as it was.
    """
    weights, metadata = read_tensors(path)
    layers = {key: value for key, value in weights.items() if not _TEXT_ENCODER.match(key)}
    if not layers:
        raise AnchorError(f"the LoRA {path} holds layers of text encoders only, none of {component}")
    if foreign := [key for key in layers if key.endswith(_FOREIGN)]:
        raise AnchorError(
            f"the LoRA {path} holds {len(foreign)} weights that are no low-rank update, such as {foreign[0]}, which "
            "can't be switched; give a LoRA, LoHa or LoKr alone, or a full checkpoint"
        )
    if len(layers) < len(weights):
        logger.warning(
            "the LoRA %s also holds layers of text encoders, which run once a prompt: prompts are encoded by the "
            "reference's, unless text_encoder='anchor'",
            path,
        )
    adapter = next(_fresh_names)
    undo = partial(remove_adapter, denoiser, adapter, peft_metadata(denoiser))
    try:
        with unchanged_otherwise(denoiser), _only_errors("diffusers"):
            _inject(pipe, denoiser, path, component, adapter, layers, metadata)
            _check_whole(denoiser, adapter, path, component, layers)
    except BaseException as error:
        undo()
        if isinstance(error, AnchorError) or not isinstance(error, Exception):
            raise
        reason = _other_base(error) or in_short(error)
        raise AnchorError(f"the LoRA {path} doesn't fit {component}: {reason}") from error
    return adapter, undo


def read_tensors(path: Path) -> tuple[Weights, dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        AnchorError: it can't be read, or a weight is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            weights, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:
        raise AnchorError(
            f"{path} can't be read as safetensors ({error}); it may be cut short: fetch it again"
        ) from error
    check_finite(weights, str(path))
    return weights, metadata


def check_finite(weights: Mapping[str, Tensor], what: str) -> None:
    """Raise AnchorError where some weight is NaN or infinite; quantised ones can't be either, or looked at."""
    for key, value in weights.items():
        if quantisation_of(value) or not value.is_floating_point() or not value.numel():
            continue
        shown = value.detach().float() if value.element_size() == 1 else value.detach()  # float8 has no isfinite
        if not bool(torch.isfinite(shown).all()):
            raise AnchorError(f"{what}: {key} holds NaN or infinite weights, so its training diverged; take another")


_HALVES = (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up"))


def _check_pairs(path: Path, layers: Weights) -> None:
    """Check that low-rank factors are floating-point numbers and come in pairs: loaders cast, or make up the others.

    Raises:
        AnchorError: names the first that is of another kind, or alone.
    """
    for key, value in layers.items():
        if value.ndim >= 2 and not value.is_floating_point():
            raise AnchorError(
                f"{path}: {key} is of {value.dtype}; expected floating-point weights: give the LoRA unquantised"
            )
        for one, other in (*_HALVES, *(halves[::-1] for halves in _HALVES)):
            if value.ndim >= 2 and f"{one}." in key and key.replace(f"{one}.", f"{other}.") not in layers:
                raise AnchorError(f"{path} holds {key} without its {other}, so the file is incomplete: fetch it again")


def _inject(
    pipe: Any,
    denoiser: nn.Module,
    path: Path,
    component: str,
    adapter: str,
    layers: Weights,
    metadata: Mapping[str, str],
) -> None:
    _check_pairs(path, layers)
    config = _peft_config(path)
    by_module = _named_by_module(layers, denoiser, component)
    if config is not None or (by_module is not None and _holds(layers, "hada_")):
        if by_module is None:
            raise AnchorError(f"the LoRA {path} names layers that {component} doesn't have: {_some(layers)}")
        _inject_by_peft(denoiser, adapter, by_module, config or _loha_config(by_module))
    elif by_module is not None:
        _inject_by_diffusers(denoiser, component, adapter, by_module, metadata)
    elif hasattr(pipe, "load_lora_weights"):
        _convert_and_inject(pipe, denoiser, path, component, adapter, layers)
    else:
        raise AnchorError(
            f"the LoRA {path} names layers that {component} doesn't have ({_some(layers)}), and {type(pipe).__name__} "
            "brings no conversion; give a LoRA of this network, or a full checkpoint"
        )


def _inject_by_peft(denoiser: nn.Module, adapter: str, by_module: Weights, config: PeftConfig) -> None:
    names = {key: value for key, value in by_module.items() if not key.endswith(".alpha")}
    inject_adapter_in_model(config, denoiser, adapter_name=adapter)
    vars(denoiser)["_hf_peft_config_loaded"] = True  # as diffusers notes it
    result: Any = set_peft_model_state_dict(denoiser, names, adapter_name=adapter)
    if unexpected := list(getattr(result, "unexpected_keys", [])):
        raise AnchorError(f"{len(unexpected)} of its weights have no place there, such as {unexpected[0]}")


def _inject_by_diffusers(
    denoiser: Any, component: str, adapter: str, by_module: Weights, metadata: Mapping[str, str]
) -> None:
    if any(key.endswith(".dora_scale") for key in by_module):
        raise AnchorError("it is a DoRA whose magnitudes diffusers would drop; save it in PEFT's own layout")
    alphas = {f"{component}.{key}": float(value) for key, value in by_module.items() if key.endswith(".alpha")}
    state = {f"{component}.{key}": value for key, value in by_module.items() if not key.endswith(".alpha")}
    settings = _adapter_metadata(metadata, component)
    denoiser.load_lora_adapter(
        state,
        prefix=component,
        adapter_name=adapter,
        metadata=settings or None,
        network_alphas=None if settings else alphas or None,
    )


def _convert_and_inject(pipe: Any, denoiser: Any, path: Path, component: str, adapter: str, layers: Weights) -> None:
    file = {"weight_name": path.name, "use_safetensors": True, "local_files_only": True}
    state, *others = pipe.lora_state_dict(path.parent, return_lora_metadata=True, **file)
    if any("dora_scale" in key for key in layers):
        raise AnchorError("it is a DoRA whose magnitudes diffusers would drop; save it in PEFT's own layout")
    if not any(key.startswith("text_encoder") for key in state):
        second = {"load_into_transformer_2": True} if component == "transformer_2" else {}
        pipe.load_lora_weights(path.parent, adapter_name=adapter, **file, **second)
        return
    prefix = pipe.unet_name if hasattr(pipe, "unet_name") else pipe.transformer_name
    settings = others[-1] or None
    alphas = None if len(others) < 2 or settings else others[0]
    denoiser.load_lora_adapter(state, prefix=prefix, adapter_name=adapter, metadata=settings, network_alphas=alphas)


def _peft_config(path: Path) -> PeftConfig | None:
    """The config that PEFT writes beside its weights.

    Raises:
        AnchorError: it can't be read, or trains more than the layers' updates.
    """
    if not path.with_name("adapter_config.json").is_file():
        return None
    try:
        config = PeftConfig.from_pretrained(str(path.parent))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise AnchorError(f"{path.with_name('adapter_config.json')} can't be read: {error}") from error
    if saved := getattr(config, "modules_to_save", None):
        raise AnchorError(f"it holds whole modules beside ({', '.join(saved)}), which can't be switched off; merge it")
    if getattr(config, "bias", "none") != "none":
        raise AnchorError("it trains biases of the network itself, which can't be switched off; merge it")
    return config


def _loha_config(by_module: Weights) -> LoHaConfig:
    """The config of a LyCORIS LoHa, which says of itself nothing but its shapes and alphas."""
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    convolutions = False
    for key, value in by_module.items():
        module, part = _split(key)
        if part == ".hada_w1_b":
            ranks[module] = value.shape[0]
        elif part == ".alpha":
            alphas[module] = float(value)
        convolutions |= part == ".hada_t1"
    rank = Counter(ranks.values()).most_common(1)[0][0]
    return LoHaConfig(
        r=rank,
        alpha=rank,
        target_modules=sorted(ranks),
        rank_pattern={module: value for module, value in ranks.items() if value != rank},
        alpha_pattern={module: alphas.get(module, ranks[module]) for module in ranks},  # pyright: ignore[reportArgumentType]
        use_effective_conv2d=convolutions,
    )


def _adapter_metadata(metadata: Mapping[str, str], component: str) -> dict[str, Any]:
    """What diffusers notes of a LoRA's config in its file, under the component's name."""
    text = metadata.get("lora_adapter_metadata")
    if text is None:
        return {}
    settings = parse_object(text, "its metadata, lora_adapter_metadata,", AnchorError)
    settings = {key: value for key, value in settings.items() if value is not None}
    packed = {key: value for key, value in settings.items() if key.startswith(f"{component}.")}
    return packed or {f"{component}.{key}": value for key, value in settings.items() if "." not in key}


def _named_by_module(layers: Weights, denoiser: nn.Module, component: str) -> Weights | None:
    """The weights under the names of the denoiser's own modules; None where some layer isn't named so."""
    modules = {plain_name(name) for name, _ in denoiser.named_modules()}
    by_underscores = {name.replace(".", "_"): name for name in modules}
    named: Weights = {}
    for key, value in layers.items():
        module, part = _split(key)
        if _KOHYA.match(module):
            module = by_underscores.get(_KOHYA.sub("", module), "")
        for prefix in (*_PREFIXES, f"{component}."):
            module = module if module in modules else module.removeprefix(prefix)
        if not part or module not in modules or not module:
            return None
        named[module + part] = value
    return named


def _split(key: str) -> tuple[str, str]:
    """A key as the module's name and what follows it, the latter in PEFT's spelling; "" where that isn't known."""
    for spelling, standard in _SPELLINGS.items():
        if key.endswith(spelling):
            key = key.removesuffix(spelling) + standard
    match = _PART.search(key)
    return (key[: match.start()], match.group()) if match else (key, "")


def _holds(layers: Weights, part: str) -> bool:
    return any(part in key for key in layers)


def _check_whole(denoiser: nn.Module, adapter: str, path: Path, component: str, layers: Weights) -> None:
    """Raise AnchorError where layers of the file are not on the denoiser."""
    loaded = len(adapter_layers(denoiser, adapter))
    there = len({module for module, part in map(_split, layers) if part in _DOWN})
    if not loaded:
        raise AnchorError(f"the LoRA {path} holds no layer that {component} has; its keys are such as {_some(layers)}")
    if loaded < there:
        raise AnchorError(
            f"of the {there} layers in the LoRA {path} only {loaded} are ones that {component} has, so it was made for "
            f"another network, or its keys ({_some(layers)}) are mixed in a way that isn't known"
        )


def _some(layers: Weights) -> str:
    return ", ".join(sorted(layers)[:2])


_SHAPE = r".*?Size\(\[(?P<{}>[^]]*)\]\)"
_SIZES = re.compile(
    r"size mismatch for (?P<layer>\S+?)\.lora_" + _SHAPE.format("there") + _SHAPE.format("here"), re.DOTALL
)


def _other_base(error: BaseException) -> str | None:
    """What PyTorch says of a layer of another size, in a sentence; None where it says something else."""
    match = _SIZES.search(str(error))
    if match is None:
        return None
    sizes = f"{match['layer']} is [{match['there']}] in it, and would be [{match['here']}]"
    return f"it was made for another base model ({sizes}); give one that was trained on this model"


def in_short(error: BaseException) -> str:
    """The first line or two of an error: PyTorch lists every layer that doesn't fit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    more = f" (and {len(lines) - 2} more like it)" if len(lines) > 2 else ""
    return " ".join(lines[:2])[:400] + more


@contextmanager
def _only_errors(name: str) -> Generator[None]:
    """Inside the block a library logs errors alone: diffusers warns of every part that a LoRA leaves out."""
    its_logger = logging.getLogger(name)
    level = its_logger.level
    its_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        its_logger.setLevel(level)

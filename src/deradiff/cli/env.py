"""``deradiff env``: what a bug report needs to say of a machine; no secrets."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deradiff.cli.common import echo

_PACKAGES = ("deradiff", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "huggingface_hub")
_VARIABLES = ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")


def env() -> None:
    """Print versions, devices and cache folders, for a bug report."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    lines = {"Python": platform.python_version(), "platform": platform.platform()}
    lines |= {name: _version(name) for name in _PACKAGES}
    lines["devices"] = ", ".join(["cpu", *_accelerators()])
    lines["threads"] = str(torch.get_num_threads())
    lines["hub cache"] = _shorten_home(HF_HUB_CACHE)
    lines |= {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    width = max(map(len, lines))
    for name, value in lines.items():
        echo(f"{name:<{width}}  {value}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _accelerators() -> list[str]:
    import torch

    names = [f"cuda:{n} {torch.cuda.get_device_name(n)}" for n in range(torch.cuda.device_count())]
    return [*names, *(["mps"] if torch.backends.mps.is_available() else [])]


def _shorten_home(path: str) -> str:
    """A path without the user's name."""
    home = str(Path.home())
    return "~" + path.removeprefix(home) if path.startswith(home) else path

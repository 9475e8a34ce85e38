"""The node pack, imported against the fake of ComfyUI."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.integrations import fake_comfy

PACK = Path(__file__).parents[2] / "integrations" / "comfyui"
MODULES = ("bake", "errors", "grid", "injection", "lams", "lora", "lora_file", "mixing", "nodes", "two_models")


@pytest.fixture(scope="package")
def lora_files() -> dict[str, Any]:
    """The files in the fake's loras folder: tensors and metadata by name."""
    return {}


@pytest.fixture(scope="package")
def pack(lora_files: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The pack's modules by name, with what they import and where they save."""
    output = tmp_path_factory.mktemp("output")
    with pytest.MonkeyPatch.context() as patch:
        for name, module in fake_comfy.modules(lora_files, str(output)).items():
            patch.setitem(sys.modules, name, module)
        patch.syspath_prepend(str(PACK))
        modules = {name: importlib.import_module(f"deradiff_comfyui.{name}") for name in MODULES}
        yield SimpleNamespace(**modules, output=output)
        fake_comfy.forget("deradiff_comfyui")

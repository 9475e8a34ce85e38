"""The public surface: what ``import deradiff`` shows, and that names mean one thing."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from tests.zoo import ZOO, anchor_of

import deradiff
from deradiff import errors
from deradiff.errors import RealignError


def test_dir_shows_all_that_is_public_and_it_is_there() -> None:
    assert set(deradiff.__all__) <= set(dir(deradiff))
    for name in deradiff.__all__:
        assert getattr(deradiff, name) is not None
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert kinds <= set(deradiff.__all__)
    with pytest.raises(AttributeError, match="realing"):
        deradiff.realing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnusedExpression]


def test_no_module_is_hidden_by_a_function_of_its_name() -> None:
    hidden: list[str] = []
    for info in pkgutil.walk_packages(deradiff.__path__, "deradiff."):
        importlib.import_module(info.name)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "deradiff" and hasattr(module, "__path__"):
            names = [info.name for info in pkgutil.iter_modules(module.__path__)]
            hidden += [f"{name}.{own}" for own in names if not isinstance(getattr(module, own), ModuleType)]
    assert hidden == []


def test_importing_it_imports_no_heavy_library() -> None:
    code = "import sys, deradiff; print(*({'torch', 'diffusers', 'numpy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_handle_takes_no_misspelled_attribute_and_is_found_again() -> None:
    pipe: Any = ZOO["sd"].build()
    with pytest.raises(RealignError, match="not realigned"):
        deradiff.handle_of(pipe)
    with deradiff.realign(pipe, anchor_of(pipe.unet), 0.5) as handle:
        assert deradiff.handle_of(pipe) is handle
        with pytest.raises(AttributeError, match=r"no attribute .lams.; did you mean lam\?"):
            handle.lams = 0.5  # pyright: ignore[reportAttributeAccessIssue]
        assert handle.lam == 0.5
        assert handle.policy == deradiff.Exact()
        handle.policy = deradiff.Reuse(2)
        assert handle.policy == deradiff.Reuse(2)
        shown = {name for name in dir(handle) if not name.startswith("_")}
        settings = {"lam", "particles", "policy", "return_all_particles"}
        assert shown == settings | {"anchors", "components", "paths", "recording", "remove"}
    with pytest.raises(RealignError, match="not realigned"):
        deradiff.handle_of(pipe)

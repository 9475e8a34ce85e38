"""Options of a long command from a YAML file; what is said on the command line wins."""

from pathlib import Path
from reprlib import repr as shortened
from typing import Annotated, Any

import typer

from deradiff.cli.options import COUNT_OR_LIST
from deradiff.errors import ConfigError
from deradiff.local_modules import allow_named_in
from deradiff.reading import read_yaml

_LARGEST = 1 << 20  # bytes of a file of options


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Let the file's values stand where the command line says nothing."""
    if path is None:
        return None
    values_read = read_yaml(path, "--config", ConfigError)
    options = {option.opts[0].lstrip("-"): option for option in ctx.command.params if option.name != "config"}
    expected = f"expected lines 'option: value' of {', '.join(options)}"
    if not isinstance(values_read, dict):
        raise ConfigError(f"--config {path} holds {shortened(values_read)}; {expected}")
    names = [_dashed(name) for name in values_read]
    if unknown := sorted(set(names) - options.keys()):
        raise ConfigError(f"--config {path} has {', '.join(unknown)}; {expected}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--config {path} has {', '.join(twice)} twice; leave one out")
    values = (
        (options[name], value) for name, value in zip(names, values_read.values(), strict=True) if value is not None
    )
    ctx.default_map = {option.name: _value(path, option, value) for option, value in values}
    return path


def _dashed(name: Any) -> str:
    return str(name).replace("_", "-")


def _value(path: Path, option: Any, value: Any) -> Any:
    """As the command line would say it: a list is one text with commas, but where an option may be repeated."""
    flag, several = isinstance(value, bool), value if isinstance(value, list) else [value]
    if flag != bool(option.is_flag) or any(isinstance(one, dict | list | bool) for one in several if not flag):
        expected = "true or false" if option.is_flag else "a number, a text (words like no and on in quotes), or a list"
        name = option.opts[0].lstrip("-")
        raise ConfigError(f"--config {path}: {name} is {shortened(value)}; expected {expected}")
    if flag:
        return value
    texts = [str(one) for one in several]
    allow_named_in(texts)
    if option.multiple:
        return texts
    alone = option.metavar == COUNT_OR_LIST and isinstance(value, list) and len(texts) == 1
    return ",".join(texts) + "," * alone


Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of these options, 'steps: 50' a line; the command line wins.",
        callback=read_config,
        is_eager=True,
    ),
]

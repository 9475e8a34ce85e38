"""Options of a long command from a YAML file; what is said on the command line wins."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deradiff.errors import PlanError


def _defaults(ctx: typer.Context, path: Path | None) -> Path | None:
    """Let the file's values stand where the command line says nothing."""
    if path is None:
        return None
    import yaml

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"--config {path} can't be read: {error}") from error
    options = {_dashed(option.name): option for option in ctx.command.params if option.name != "config"}
    expected = f"expected lines 'option: value' of {', '.join(options)}"
    if not isinstance(given, dict):
        raise PlanError(f"--config {path} holds {given!r}; {expected}")
    given = {_dashed(name): value for name, value in given.items()}
    if unknown := sorted(given.keys() - options.keys()):
        raise PlanError(f"--config {path} has {', '.join(unknown)}; {expected}")
    ctx.default_map = {options[name].name: _value(options[name], value) for name, value in given.items()}
    return path


def _dashed(name: Any) -> str:
    return str(name).replace("_", "-")


def _value(option: Any, value: Any) -> Any:
    """As the command line would say it: a list is one text with commas, but where an option may be repeated."""
    if isinstance(value, list):
        return [str(one) for one in value] if option.multiple else ",".join(map(str, value))
    return value


Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of these options, 'steps: 50' a line; the command line wins.",
        callback=_defaults,
        is_eager=True,
    ),
]

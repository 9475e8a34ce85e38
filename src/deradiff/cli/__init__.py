"""The command line: thin commands, each in a file of its own; heavy imports happen inside them."""

import re
import sys
import traceback
from importlib.metadata import version
from tempfile import NamedTemporaryFile
from typing import Annotated

import typer

from deradiff.cli import align, bake, compare, demo, env, generate, paths, recommend, report, rewards, search, sweep
from deradiff.cli.old_options import in_todays_words
from deradiff.errors import DeradiffError, abbreviate
from deradiff.local_modules import allow_named_in

_INTERRUPTED, _BUG = 130, 70  # exit codes by Ctrl-C, and of sysexits.h for an internal error

_HELP = {"help_option_names": ["-h", "--help"]}
_COMMANDS = {
    "demo": demo.demo,
    "align": align.align,
    "generate": generate.generate,
    "sweep": sweep.sweep,
    "search": search.search,
    "score": report.score,
    "recommend": recommend.recommend,
    "report": report.report,
    "export": report.export,
    "merge": report.merge,
    "reweight": paths.reweight,
    "calibrate": paths.calibrate,
    "compare": compare.compare,
    "bake": bake.bake,
    "extract-lora": bake.extract_lora,
    "rewards": rewards.rewards,
    "env": env.env,
}


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"deradiff {version('deradiff')}")
        raise typer.Exit


app = typer.Typer(
    help="How strongly should I align my diffusion model? Align once, then choose the strength at sampling time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
)
for _name, _command in _COMMANDS.items():
    app.command(_name, context_settings=_HELP)(_command)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 2, Ctrl-C is reported too."""
    words, notes = in_todays_words(sys.argv[1:])
    allow_named_in(words)  # rewards named module:function may lie in the working folder
    for note in notes:
        sys.stderr.write(f"Note: {note}\n")
    try:
        app(words)
    except DeradiffError as error:
        sys.stderr.write(f"Error: {_without_endless_words(str(error))}\n")
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            sys.stderr.write("Stopped. What was made is kept: the same command goes on from there.\n")
        raise
    except Exception as error:  # noqa: BLE001  (the last net: no known input comes here)
        sys.stderr.write(_describe_bug(error))
        sys.exit(_BUG)


def _without_endless_words(text: str) -> str:
    """A message whose paths are short enough to be read."""
    return re.sub(r"\S{500,}", lambda word: abbreviate(word[0], 200), text)


def _describe_bug(error: Exception) -> str:
    """What to say of an error that nobody foresaw, whose traceback goes into a file."""
    with NamedTemporaryFile("w", prefix="deradiff-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    packages = ("deradiff", "torch", "diffusers", "transformers", "peft")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    first = (str(error).splitlines() or [""])[0][:200]
    return (
        f"Error: this is a bug in deradiff ({type(error).__name__}: {first}); please report it with {file.name} and "
        f"these versions: {versions}, Python {sys.version.split()[0]}\n"
    )

"""The commands by name; heavy imports happen inside them."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from deradiff.cli import (
    align,
    anchors,
    bake,
    compare,
    demo,
    env,
    generate,
    paths,
    recommend,
    report,
    rewards,
    search,
    sweep,
    tune,
)
from deradiff.cli import (
    app as page,
)
from deradiff.cli.common import echo, log_printable, with_ray_address
from deradiff.cli.old_options import in_todays_words
from deradiff.errors import ConfigError
from deradiff.local_modules import allow_named_in

_HELP = {"help_option_names": ["-h", "--help"]}
_COMMANDS = {
    "demo": demo.demo,
    "app": page.app,
    "tune": tune.tune,
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
    "anchors": anchors.anchors,
    "env": env.env,
}


def _show_version(asked: bool) -> None:
    if asked:
        echo(f"deradiff {version('deradiff')}")
        raise typer.Exit


app = typer.Typer(
    help="How strongly should I align my diffusion model? Align once, then choose the strength at sampling time.",
    no_args_is_help=True,
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


def run(arguments: Sequence[str]) -> None:
    """Run the command that these words are.

    Raises:
        DeradiffError: what was wrong.
        SystemExit: usage errors, and commands that end with a code.
    """
    _check_working_folder()
    words, notes = in_todays_words(arguments)
    allow_named_in(words)  # rewards named module:function may lie in the working folder
    for note in notes:
        echo(f"Note: {note}", err=True)
    log_printable()
    app(with_ray_address(words))


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        raise ConfigError(f"the working folder is gone ({error.strerror}); cd to one that exists") from error

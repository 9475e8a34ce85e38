"""The command line: thin commands, each in a file of its own; heavy imports happen inside them."""

import sys
from pathlib import Path

import typer

from deradiff.cli import align, compare, demo, generate, paths, recommend, report, rewards, search, sweep
from deradiff.cli.old_options import in_todays_words
from deradiff.errors import DeradiffError

_INTERRUPTED = 130  # exit code by Ctrl-C

app = typer.Typer(
    help="How strongly should I align my diffusion model? Align once, then choose the strength at sampling time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("align")(align.align)
app.command("generate")(generate.generate)
app.command("sweep")(sweep.sweep)
app.command("search")(search.search)
app.command("score")(report.score)
app.command("recommend")(recommend.recommend)
app.command("report")(report.report)
app.command("export")(report.export)
app.command("merge")(report.merge)
app.command("reweight")(paths.reweight)
app.command("calibrate")(paths.calibrate)
app.command("compare")(compare.compare)
app.command("rewards")(rewards.rewards)


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 2, Ctrl-C is reported too."""
    sys.path.append(str(Path.cwd()))  # rewards named module:function may lie in the working folder
    words, notes = in_todays_words(sys.argv[1:])
    for note in notes:
        sys.stderr.write(f"Note: {note}\n")
    try:
        app(words)
    except DeradiffError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            sys.stderr.write("Stopped. What was made is kept: the same command goes on from there.\n")
        raise

"""Every code block of the documentation is run, page by page from top to bottom, or at least compiled and parsed.

A block that can't be run here has ``<!-- not run: why -->`` directly above it.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from tests.cli.shell import here
from tests.docs.pages import PAGES, ROOT, SHELL, Block, blocks, code_spans, small
from tests.docs.workspace import furnish, names_at_hand, rewards_at_hand

from deradiff.cli.commands import app
from deradiff.local_modules import allow_named_in

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
OPTIONS = {
    name: {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    for name, command in COMMANDS.items()
}
SMALL = {"--model": ["--steps", "1"], "--objective": ["--max-images", "180"]}  # of sweeps that begin, and of searches
OTHERS = ("pip", "hf", "ruff", "ray")  # programs of other projects, which are not ours to test
PROGRAM_OPTIONS = {"--version", "--help", "--install-completion"}
OTHERS_OPTIONS = {"--num_processes", "--local-dir", "--cpu"}  # of these
BLOCKS = [block for page in PAGES for block in blocks(page)]
pytestmark = pytest.mark.usefixtures("quick", "no_advice")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with rewards_at_hand():
        folder = tmp_path_factory.mktemp("workspace")
        furnish(folder)
        yield folder


def words_of(command: str) -> list[str]:
    """The words of a command that is ``deradiff``, however it is started; none of another."""
    words = [word.strip("[]") for word in shlex.split(command) if word != "..."]
    if words[0] == "deradiff":
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1] == "deradiff":
        return words[words.index("-m") + 2 :]
    return []


def check_other(command: str) -> None:
    """Of a command that isn't deradiff: what of this project it names is there."""
    program, *words = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), command
    elif program in ("python", "bash"):
        assert words[0] == "-m" or (ROOT / words[0]).is_file(), command
    else:
        assert program in OTHERS, command


def check_names(words: list[str]) -> None:
    """The command and its options exist."""
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    if words[0] in PROGRAM_OPTIONS:
        return
    assert words[0] in COMMANDS, words
    assert named <= OPTIONS[words[0]], words


def shortened(words: list[str]) -> list[str]:
    """The same command at a size that takes seconds."""
    name, *rest = words
    if name in ("sweep", "search"):
        return [*words, *(word for option, more in SMALL.items() if option in rest for word in more)]
    return words


def run_shell(block: Block) -> None:
    for command in block.commands:
        words = words_of(command)
        if not words:
            check_other(command)
        elif "..." in command:  # options stand above
            check_names(words)
        else:
            COMMANDS[words[0]].make_context(words[0], words[1:])  # parses, and runs nothing
            if block.runs:
                allow_named_in(words)
                here(*shortened(words))


def run_python(block: Block, names: dict[str, Any]) -> None:
    code = compile("\n" * (block.line - 1) + small(block.text), block.page, "exec")
    if block.runs:
        exec(code, names)


def test_blocks_are_found() -> None:
    assert {block.language for block in BLOCKS} <= {*SHELL, "python", "toml", "yaml", "json", "http", "mermaid"}
    assert {block.page.name for block in BLOCKS} >= {"README.md", "CONTRIBUTING.md", "sweep.md", "recommend.md"}
    assert sum(block.language == "python" and block.runs for block in BLOCKS) >= 5
    assert sum(block.language in SHELL and block.runs for block in BLOCKS) >= 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    """All blocks in one folder, the Python ones in one namespace."""
    own = [block for block in BLOCKS if block.page == page]
    folder = tmp_path / "workspace"
    if any(block.runs and block.language in (*SHELL, "python") for block in own):
        shutil.copytree(furnished, folder)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
    names = names_at_hand(furnished) if any(block.language == "python" for block in own) else {}
    for block in own:
        try:
            if block.language in SHELL:
                run_shell(block)
            elif block.language == "python":
                run_python(block, names)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block}: {error!r}") from error
    sys.modules.pop("mine", None)
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_named_in_the_text_exist(page: Path) -> None:
    every = set[str]().union(*OPTIONS.values()) | PROGRAM_OPTIONS | OTHERS_OPTIONS
    for span in code_spans(page):
        if words := words_of(span) if span.startswith("deradiff ") else []:
            check_names(words)
        elif span.startswith("--"):
            assert span.split()[0].partition("=")[0] in every, span
        elif span.startswith(("make ", "python ", "bash ")):
            check_other(span)

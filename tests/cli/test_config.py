"""Options from a file."""

import json
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from deradiff.cli.config import Config
from deradiff.cli.options import Seeds
from deradiff.errors import ConfigError

app = typer.Typer(add_completion=False)


@app.command()
def command(
    rewards: Annotated[str, typer.Option()],
    prompt: Annotated[list[str] | None, typer.Option()] = None,
    learning_rate: Annotated[float, typer.Option()] = 1.0,
    full: Annotated[bool, typer.Option("--full")] = False,
    seeds: Seeds = "4",
    out: Annotated[Path, typer.Option()] = Path("runs"),
    config: Config = None,
) -> None:
    typer.echo(json.dumps([rewards, prompt, learning_rate, full, str(out), seeds][: 5 + (seeds != "4")]))


def test_one_seed_in_a_list_is_no_count(tmp_path: Path) -> None:
    for text, seeds in (("[7]", "7,"), ("7", "7"), ("[0, 7]", "0,7")):
        assert given(tmp_path / "c.yaml", f"rewards: [a]\nseeds: {text}\n")[::5] == ["a", seeds]


def given(file: Path, content: str, *words: str) -> list[object]:
    file.write_text(content)
    done = CliRunner().invoke(app, ["--config", str(file), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_files_values_are_as_if_typed(tmp_path: Path) -> None:
    content = "rewards: [a, b]\nprompt: ['a, red', two]\nlearning-rate: 2.5e-5\nfull: true\nout: elsewhere\n"
    assert given(tmp_path / "c.yaml", content) == ["a,b", ["a, red", "two"], 2.5e-5, True, "elsewhere"]
    assert given(tmp_path / "c.yaml", "rewards: a\nlearning_rate: 1e-3\n") == ["a", None, 1e-3, False, "runs"]
    content = "rewards: 'no'\nprompt: one, alone\nlearning-rate: null\nfull: false\nout: 5\n"
    assert given(tmp_path / "c.yaml", content) == ["no", ["one, alone"], 1.0, False, "5"]


def test_the_command_line_wins(tmp_path: Path) -> None:
    content = "rewards: a\nlearning-rate: 3\nprompt: [file]\n"
    told = given(tmp_path / "c.yaml", content, "--learning-rate", "4", "--prompt", "shell", "--rewards", "b")
    assert told[:3] == ["b", ["shell"], 4]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("reward: a\n", "has reward; expected lines 'option: value' of rewards, prompt, learning-rate, full, seeds"),
        ("config: other.yaml\n", "has config"),
        ("just words", "holds 'just words'"),
        ("", "holds None"),
        ("a: [", "can't be read"),
        ("out: 2024-13-45", "can't be read"),
        ("rewards: no", "rewards is False; expected a number, a text (words like no and on in quotes)"),
        ("learning-rate: true", "learning-rate is True; expected a number"),
        ("prompt: [a, {b: c}]", "prompt is ['a', {'b': 'c'}]; expected a number, a text"),
        ("full: maybe", "full is 'maybe'; expected true or false"),
        ("learning-rate: 1\nlearning_rate: 2", "has learning-rate twice"),
        (None, "can't be read"),
    ],
)
def test_what_is_no_set_of_options_is_reported(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError) as failed:
        CliRunner().invoke(app, ["--config", str(tmp_path / "c.yaml")], catch_exceptions=False)
    assert told in str(failed.value)


def test_values_are_checked_as_typed_ones_are(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("rewards: a\nlearning-rate: fast\n")
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "c.yaml")])
    assert done.exit_code == 2
    assert "--learning-rate" in done.output
    assert "Invalid value" in done.output

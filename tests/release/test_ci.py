"""What CI and the issue templates name is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deradiff.cli.commands import app

ROOT = Path(__file__).parents[2]


def read(file: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / file).read_text())


def test_ci_runs_targets_of_the_makefile() -> None:
    targets = read("workflows/ci.yml")["jobs"]["make"]["strategy"]["matrix"]["target"]
    assert {"lint", "test", "docs"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target


def test_each_step_of_ci_is_an_action_or_a_command_of_what_the_matrix_has() -> None:
    job = read("workflows/ci.yml")["jobs"]["make"]
    for step in job["steps"]:
        assert len({"uses", "run"} & step.keys()) == 1, step
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/checkout@v1")), step
    for expression in re.findall(r"\$\{\{ matrix\.(\w+) }}", str(job)):
        assert expression in job["strategy"]["matrix"]


@pytest.mark.parametrize("template", ["bug.yml", "unsupported.yml"])
def test_issues_ask_for_the_environment(template: str) -> None:
    fields = {field["id"]: field for field in read(f"ISSUE_TEMPLATE/{template}")["body"]}
    assert "`deradiff env`" in fields["env"]["attributes"]["label"]
    assert fields["env"]["validations"]["required"] is True
    assert any(
        command.callback is not None and command.callback.__name__ == "env" for command in app.registered_commands
    )


def test_the_image_copies_what_it_installs() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    assert names >= {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "src"}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)

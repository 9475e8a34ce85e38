"""The configurations of other programs: accelerate reads its own, and the commands in all of them are ours."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

from deradiff.cli.commands import app

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
CONFIGS = sorted([*(EXAMPLES / "accelerate").glob("*.yaml"), *(EXAMPLES / "cluster").glob("*.yaml")])


@pytest.mark.parametrize(("name", "machines", "processes"), [("ddp", 1, 8), ("ddp_two_machines", 2, 16)])
def test_accelerate_reads_its_configurations(name: str, machines: int, processes: int) -> None:
    config = load_config_from_file(str(EXAMPLES / "accelerate" / f"{name}.yaml"))  # raises for an unknown key
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == DistributedType.MULTI_GPU
    assert (config.num_machines, config.num_processes, config.use_cpu) == (machines, processes, False)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_commands_in_configurations_are_ours(path: Path) -> None:
    text = re.sub(r"\\\n#? *", " ", path.read_text())
    assert isinstance(yaml.safe_load(text), dict)
    commands = re.findall(r"deradiff ([a-z]+)([^\n]*)", text)
    for name, rest in commands:
        options = {text for option in COMMANDS[name].params for text in option.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options
    assert commands

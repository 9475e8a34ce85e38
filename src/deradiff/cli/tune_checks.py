"""What ``deradiff tune`` checks before its first stage: mistakes that later ones would find after hours."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

_SET_BY_TUNE = ("model", "data", "self-label", "prompts", "beta", "out", "config")


def check_paths(params: Mapping[str, Any]) -> None:
    """Check the files and folders among the options of tune.

    Raises:
        ConfigError: names the option, what was given and what to give.
    """
    from deradiff.errors import ConfigError

    _check_out(params["out"])
    _check_align_config(params["align_config"])
    if params["data"] is not None and not params["data"].exists():
        raise ConfigError(f"--data {params['data']} isn't there; give a table of preferences, or a folder with one")


def check_stages(params: Mapping[str, Any], align: Mapping[str, Any], prompts: int) -> None:
    """Check the other options of all stages.

    Args:
        params: of tune.
        align: of the command that aligns.
        prompts: how many lam is chosen on.

    Raises:
        DeradiffError: names the option, what was given and what to give.
    """
    from deradiff.cli.align import training_settings
    from deradiff.cli.parsing import parse_criteria, parse_duration
    from deradiff.errors import ConfigError
    from deradiff.search.search import check_start
    from deradiff.search.settings import Settings, make_grid

    training_settings(align)
    criteria = parse_criteria(params["objective"], params["guard"], None, params["risk"])
    check_start(Settings(criteria=criteria, max_images=params["max_images"]), prompts, make_grid(1.0))
    for name in dict.fromkeys([*criteria.rewards, *filter(None, [params["self_label"]])]):
        _check_reward(name)
    if params["guidance"] is not None and not isfinite(params["guidance"]):
        raise ConfigError(f"--guidance is {params['guidance']}; expected a number, such as 7.5")
    if params["distil"] is not None:
        parse_duration(params["distil"])


def _check_out(out: Path) -> None:
    from deradiff.anchor.earlier_weights import earlier_weights
    from deradiff.cli.options import check_out
    from deradiff.errors import ConfigError
    from deradiff.runs.legacy import is_legacy
    from deradiff.runs.store import Store

    check_out(out)
    for stage in ("anchor", "run", "baked"):
        if (out / stage).exists() and not (out / stage).is_dir():
            raise ConfigError(f"{out / stage} is a file, where tune needs a folder; move it, or give another --out")
    earlier_weights(out / "baked", ConfigError)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a folder, for the anchor, the run and the bake")
    if Store.exists(out) or is_legacy(out) or (out / "model_index.json").exists():
        what = "a pipeline" if (out / "model_index.json").exists() else "a run"
        raise ConfigError(f"--out {out} is {what}; give a folder of its own, for the anchor, the run and the bake")


def _check_align_config(path: Path | None) -> None:
    from deradiff.errors import ConfigError
    from deradiff.reading import read_yaml

    if path is None:
        return
    if not path.is_file():
        raise ConfigError(f"--align-config {path} is no file; give a YAML file of options of align, 'steps: 50' a line")
    values = read_yaml(path, "--align-config", ConfigError)
    names = [str(name).replace("_", "-") for name in values] if isinstance(values, dict) else []
    if clash := sorted(set(names) & set(_SET_BY_TUNE)):
        raise ConfigError(f"--align-config {path} has {', '.join(clash)}, which tune sets itself; leave it out there")


def _check_reward(name: str) -> None:
    """Check that a reward is known; the weights of a scorer are not loaded."""
    from deradiff.errors import ConfigError
    from deradiff.rewards import find_registered, load_reward
    from deradiff.rewards.scorer import Scorer

    base, _, source = name.partition("=")
    registered = None if ":" in base else find_registered(base)  # else a function, or a url
    if not (isinstance(registered, type) and issubclass(registered, Scorer)):
        load_reward(name)
    elif source and not Path(source).expanduser().exists():
        raise ConfigError(f"the files of the reward {base} are to be in {source}, which isn't there")

"""Weights that an earlier training or bake left in a folder: they go when others come, or loaders would take them."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from deradiff.anchor.lora_files import CARD, DIFFUSERS_FILE, PEFT_CONFIG, PEFT_FILE
from deradiff.compat import DENOISERS
from deradiff.errors import DeradiffError, shown_path

_CHECKPOINT_CARD = f"{CARD}.json"


def earlier_weights(folder: Path, error: type[DeradiffError]) -> set[str]:
    """Names of files and folders that hold weights, and what describes them.

    Args:
        folder: need not exist; kohya's file in it is named after it.
        error: kind of the error.

    Raises:
        DeradiffError: weights are there that deradiff didn't write; of the kind asked for.
    """
    if not folder.is_dir():
        return set()
    loras = {file for file in (DIFFUSERS_FILE, PEFT_FILE, f"{folder.name}.safetensors") if (folder / file).is_file()}
    networks = {name for name in DENOISERS if (folder / name / "config.json").is_file()}
    foreign = {file for file in loras if not _has_card(folder / file)}
    if not (folder / _CHECKPOINT_CARD).is_file():
        foreign |= networks
    if foreign:
        raise error(
            f"{shown_path(folder)} holds weights that deradiff didn't write ({', '.join(sorted(foreign))}), which "
            "would be replaced, or loaded instead of the new ones; give another folder"
        )
    described = {describing(file) for file in loras}
    described |= {PEFT_CONFIG} if PEFT_FILE in loras else set()
    described |= {"scheduler", _CHECKPOINT_CARD} if networks else set()
    return loras | networks | {name for name in described if (folder / name).exists()}


def describing(file: str) -> str:
    """The name of the card beside a file of weights."""
    return str(Path(file).with_suffix(f".{CARD}.json"))


def _has_card(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return CARD in (file.metadata() or {})
    except SafetensorError:  # damaged: nothing in it could be lost
        return True
    except OSError:
        return False

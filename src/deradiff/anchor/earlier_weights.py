"""Weights that an earlier training or bake left in a folder: they go when others come, or loaders would take them."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from deradiff.anchor.lora_files import CARD, DIFFUSERS_FILE, PEFT_CONFIG, PEFT_FILE
from deradiff.compat import DENOISERS
from deradiff.errors import DeradiffError, shown_path
from deradiff.reading import read_object

WRITER, CHECKPOINT = "writer", "checkpoint.pt"  # an entry of a bake's card; what a training resumes from
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
    files = (DIFFUSERS_FILE, PEFT_FILE, f"{kohya_name(folder)}.safetensors")
    loras = {file for file in files if (folder / file).is_file()}
    networks = {name for name in DENOISERS if (folder / name / "config.json").is_file()}
    foreign = {file for file in loras if not _has_card(folder / file)}
    if networks and not _is_written(folder, error):
        foreign |= networks
    if PEFT_FILE not in loras and (folder / PEFT_CONFIG).is_file():
        foreign.add(PEFT_CONFIG)
    if foreign:
        raise error(
            f"{shown_path(folder)} holds weights that deradiff didn't write ({', '.join(sorted(foreign))}), which "
            "would be replaced, or loaded instead of the new ones; give another folder"
        )
    described = {describing(file) for file in loras}
    described |= {PEFT_CONFIG} if PEFT_FILE in loras else set()
    described |= {"scheduler", _CHECKPOINT_CARD} if networks else set()
    return loras | networks | {name for name in described if (folder / name).exists()}


def kohya_name(folder: Path) -> str:
    """The name of a kohya file in a folder, without its ending: the folder's, however that was spelled."""
    return folder.resolve().name


def _is_written(folder: Path, error: type[DeradiffError]) -> bool:
    """Whether the network in a folder is a bake's or a training's; a card alone could be the user's word on another."""
    card = folder / _CHECKPOINT_CARD
    text = read_object(card, "the card", error) if card.is_file() else {}
    return text.get(WRITER) == CARD or (folder / CHECKPOINT).is_file()


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

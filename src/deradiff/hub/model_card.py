"""Model cards: what weights say of themselves on the hub, in the README.md beside them."""

import html
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from huggingface_hub import ModelCardData

from deradiff.errors import HubError, printable
from deradiff.reading import read_whole
from deradiff.writing import write_whole

logger = logging.getLogger("deradiff")

FILE = "README.md"
_MARK = "\n<!-- Written by deradiff, which leaves it alone once it is edited: sha256 {digest} -->\n"
_MARKED = re.compile(re.escape(_MARK).replace(r"\{digest\}", "([0-9a-f]{64})").encode() + b"$")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BASE_LICENCES = {  # as their pages on the hub say
    "runwayml/stable-diffusion-v1-5": "creativeml-openrail-m",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
}


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model card says.

    Attributes:
        title: its heading.
        summary: a sentence or two.
        reference: the pipeline that the weights belong to, as the user named it: a hub id or a path.
        facts: name -> value, shown as a table.
        usage: Python that loads the weights.
        is_adapter: whether the weights are a LoRA, and not a whole denoiser.
    """

    title: str
    summary: str
    reference: str
    facts: Mapping[str, str]
    usage: str
    is_adapter: bool

    def text(self) -> str:
        """The README, with the metadata that the hub reads; ends with a mark by which it is known again."""
        base, kind = hub_id(self.reference), "lora" if self.is_adapter else "full"
        data = ModelCardData(
            base_model=base,
            library_name="diffusers",
            pipeline_tag="text-to-image",
            tags=["diffusers", *(["lora"] if self.is_adapter else []), "text-to-image", "deradiff"],
            base_model_relation=({"lora": "adapter", "full": "finetune"}[kind] if base else None),
        )
        facts = {"base": name_of(self.reference), "licence of the base": _BASE_LICENCES.get(base or "", "unknown")}
        body = "\n".join(
            [
                f"---\n{data.to_yaml()}\n---\n",
                f"# {_inline(self.title)}\n",
                f"{_inline(self.summary)}\n",
                *_table(facts | dict(self.facts)),
                f"\n```python\n{printable(self.usage).replace('```', '')}\n```\n",
                "Made with deradiff, after [DeRaDiff](https://arxiv.org/abs/2601.20198).",
            ]
        )
        return body + _MARK.format(digest=sha256(body.encode()).hexdigest())


def write_model_card(folder: Path, card: ModelCard) -> bool:
    """Write a card as the folder's README.md, unless one is there that deradiff didn't write or that was edited.

    Returns:
        Whether the folder's README.md is this card now; a warning says where it isn't.

    Raises:
        HubError: it can't be read or written.
    """
    path, content = folder / FILE, card.text().encode()
    if path.is_symlink() or path.exists():
        before = read_whole(path, "the model card", HubError) if path.is_file() and not path.is_symlink() else b""
        if not _is_ours(before):
            logger.warning("%s isn't deradiff's, so it is left as it is and doesn't describe these weights", path)
            return False
        if before == content:
            return True
    write_whole(path, content, HubError)
    return True


def hub_id(reference: str) -> str | None:
    """The repository that a user's name of a model means; None for what lies on this machine or is embedded."""
    name = reference.partition(" (")[0]  # a location follows
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def name_of(reference: str) -> str:
    """A model's name without the folders of this machine above it."""
    return reference if hub_id(reference) else Path(reference).name or reference


def _is_ours(content: bytes) -> bool:
    match = _MARKED.search(content)
    return match is not None and sha256(content[: match.start()]).hexdigest() == match[1].decode()


def _table(facts: Mapping[str, str]) -> Sequence[str]:
    return ["| | |", "|---|---|", *(f"| {_inline(name)} | {_inline(value)} |" for name, value in facts.items())]


def _inline(text: str) -> str:
    """A user's text in Markdown: one line, no HTML, no cell's end."""
    return html.escape(" ".join(printable(text).split()), quote=False).replace("|", "\\|")

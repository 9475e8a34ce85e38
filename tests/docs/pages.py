"""The pages of the documentation, and what stands in them: fenced blocks, code in the text, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
SHELL = ("", "sh", "bash", "console")  # a block without a language is of commands
_FENCE = re.compile(r"^```(?P<language>\w*)$")
_NOT_RUN = re.compile(r"^<!-- not run: .+ -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file.
        line: of its first line of text, from 1.
        language: after the fence; empty where none is named.
        text: without the fences.
        runs: False where an HTML comment ``<!-- not run: why -->`` stands directly above it.
    """

    page: Path
    line: int
    language: str
    text: str
    runs: bool

    @property
    def commands(self) -> list[str]:
        """The command lines of a shell block, without comments; one that goes on over several lines is one."""
        joined = self.text.replace("\\\n", " ")
        stripped = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in stripped if line]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        if (fence := _FENCE.match(lines[number])) is None:
            number += 1
            continue
        end = lines.index("```", number + 1)
        runs = number == 0 or _NOT_RUN.match(lines[number - 1]) is None
        yield Block(page, number + 2, fence["language"], "\n".join(lines[number + 1 : end]) + "\n", runs)
        number = end + 1


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def code_spans(page: Path) -> list[str]:
    """What stands in backticks in the text, whitespace joined."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Targets of links and images that lie in the repository, without their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]


def small(source: str) -> str:
    """Code of a page as tests run it: fewer captions, and images of one step."""
    return re.sub(r"steps( |=)20\b", r"steps\g<1>1", source).replace("prompts(64,", "prompts(16,")

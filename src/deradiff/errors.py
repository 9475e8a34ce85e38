"""The exceptions of the package: every message names what was given, what was expected and what to do."""

import re
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten

# C0 and C1 but for tab and line feed, and what turns or hides text; not the joiners that scripts and emoji need
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_LONGEST = 2000  # characters of a message: what was given may be a file by mistake
_LONGEST_PATH = 200
_URL = re.compile(r"\b(https?://)(?:[^\s/?#]*@)?([^\s?#'\"<>]*)(?:\?[^\s#'\"<>]*)?(?:#[^\s'\"<>]*)?", re.IGNORECASE)


def printable(text: str) -> str:
    """Text of users or files as a terminal may show it.

    Control characters, surrogates and marks that turn or hide text become escapes such as ``\\x1b``; tabs and line
    feeds stay. Of a url, user, password, query and fragment are left out: they may hold a secret.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), public_url(text))


def public_url(text: str) -> str:
    """Urls in a text without user, password, query and fragment."""
    return _URL.sub(r"\1\2", text)


class DeradiffError(Exception):
    """Base of every error this package raises on purpose; its message is `printable`, and cut in its middle if long."""

    def __init__(self, message: str = "") -> None:
        text = printable(message)
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} [...] {text[-_LONGEST // 2 :]}"
        super().__init__(text)


class LamError(DeradiffError, ValueError):
    """A mixing weight ``lam`` that can't be used: not finite, of the wrong count, or with no valid mixture."""


class AnchorError(DeradiffError, ValueError):
    """An aligned model that can't be mixed with this reference: missing, unreadable or incompatible."""


class RealignError(DeradiffError, RuntimeError):
    """A pipeline in a state in which it can't be realigned: already realigned, fused, cached."""


class ScheduleError(DeradiffError, ValueError):
    """A scheduler whose noise schedule or prediction type can't be read."""


class ResultsError(DeradiffError, ValueError):
    """A table of results that is insufficient for an analysis: too few lams, missing pairs, nan scores."""


class TableError(DeradiffError, ValueError):
    """A table that can't be read: missing, damaged, of an unknown format, or with an ambiguous split."""


class ConfigError(DeradiffError, ValueError):
    """Settings that can't be used: empty prompts, an unknown scheduler, options that exclude each other."""


class RunFolderError(DeradiffError, ValueError):
    """A run folder that can't be read or written: missing, damaged, of another recipe, locked by another process."""


class RewardError(DeradiffError, ValueError):
    """A reward that can't be found, or that doesn't return one finite score per image."""


class RewardUnavailableError(RewardError):
    """A reward that can score no image at present: its server doesn't answer, or its weights can't be read."""


class PartialScoresError(RewardError):
    """A reward failed on some images; the scores of all others are recorded.

    Attributes:
        prompts: of the images that it failed on.
    """

    def __init__(self, message: str, prompts: Iterable[str]) -> None:
        super().__init__(message)
        self.prompts = frozenset(prompts)


class AlignError(DeradiffError, ValueError):
    """A training that can't run: unusable preferences, settings, or a pipeline that can't be trained."""


class BakeError(DeradiffError, ValueError):
    """A bake that can't be made or written: an anchor that no LoRA can stand for, an unusable rank or format."""


class ClusterError(DeradiffError, RuntimeError):
    """A cluster that can't be reached, on which no worker can begin, or whose work comes to nothing but errors."""


class QuarantineError(ClusterError):
    """Some images could not be made, each tried several times, and are quarantined; all others are there."""


class HubError(DeradiffError, ValueError):
    """A repository that can't be pushed to, or a model card that can't be written."""


def abbreviate(text: object, width: int = 120) -> str:
    """A path or another text, cut where a message would become unreadable."""
    shown = str(text).replace("\0", "\\0")
    return shown if len(shown) <= width else f"{shown[:width]}... ({len(shown):,} characters)"


def first_few(texts: Iterable[str]) -> str:
    """The first three of some texts, shortened and in quotes, as a message names them."""
    listed = list(texts)
    return ", ".join(repr(shorten(text, 60)) for text in listed[:3]) + (", ..." if len(listed) > 3 else "")


def shown_path(path: Path) -> str:
    """A path as a message shows it."""
    return abbreviate(path, _LONGEST_PATH)


def reason_of(error: BaseException) -> str:
    """What went wrong, in a line: the system's words, or the first line of the error's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error).strip() else type(error).__name__

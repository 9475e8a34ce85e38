"""What pages were made of before, in the run's folder: a page that is written again decodes no image.

An entry is known by its images' names, sizes and times of change, and by how it was made of them. A damaged file, or
one that can't be written, is as if it weren't there: the page is the same, only later.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from deradiff.errors import DeradiffError, ResultsError
from deradiff.reading import check_inside, read_object
from deradiff.writing import write_whole

NAME = "thumbnails.json"
_LIMIT = 36_000_000  # characters: three pages

M = TypeVar("M", bound=BaseModel)


class Cache:
    """Entries of one run.

    Args:
        folder: of the run; None for a table from elsewhere, of which nothing is kept.

    Raises:
        RunFolderError: the file is a link out of the folder.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._used, self._before = folder, dict[str, object](), dict[str, object]()
        if folder is not None:
            check_inside(folder, folder / NAME)
            with suppress(DeradiffError):
                self._before = read_object(folder / NAME, "the thumbnails", ResultsError)

    def key(self, files: Sequence[Path], *settings: object) -> str:
        """The key of what is made of some files with some settings; empty where nothing is kept."""
        if self._folder is None:
            return ""
        try:
            stats = [os.stat(file) for file in files]
        except (OSError, ValueError):
            return ""  # whoever reads it says why
        names = [os.path.relpath(file, self._folder) for file in files]
        parts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(names, stats, strict=True)]
        return blake2b(repr((parts, settings)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def get(self, key: str, kind: type[M]) -> M | None:
        """An entry, if there is one of this kind."""
        try:
            entry = kind.model_validate(self._before[key])
        except (KeyError, ValidationError):
            return None
        self._used[key] = self._before[key]
        return entry

    def add(self, key: str, entry: BaseModel) -> None:
        """Keep an entry."""
        if key:
            self._used[key] = entry.model_dump()

    def save(self) -> None:
        """Write what was used, and as much as fits of what was there before."""
        if self._folder is None or all(self._before.get(key) is entry for key, entry in self._used.items()):
            return
        lines, room = list[str](), _LIMIT
        others = {key: entry for key, entry in self._before.items() if key not in self._used}
        for key, entry in (*self._used.items(), *others.items()):
            line = f"{json.dumps(key)}:{json.dumps(entry, separators=(',', ':'))}"
            if key in self._used or len(line) <= room:
                lines.append(line)
                room -= len(line)
        with suppress(DeradiffError):
            write_whole(self._folder / NAME, f"{{{','.join(lines)}}}".encode(), ResultsError)

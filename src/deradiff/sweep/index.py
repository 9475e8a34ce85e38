"""Which batches are journalled and where: a few bytes a batch, however long its record."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deradiff.sweep.records import BatchRecord, Records


class Index:
    """The latest record of every batch in the journals of a run, as they are now.

    Args:
        files: the journals.
        count: how many batches the plan has.

    Raises:
        PlanError: a record is damaged.
    """

    def __init__(self, files: Sequence[Records[BatchRecord]], count: int) -> None:
        self._files = files
        self._file, self._start = np.zeros(count, np.int32), np.full(count, -1, np.int64)
        for number, records in enumerate(files):
            for start, record in records:
                earlier = self.get(record.batch)
                if earlier is None or record.edition >= earlier.edition:
                    self._file[record.batch], self._start[record.batch] = number, start

    @property
    def done(self) -> NDArray[np.bool_]:
        """Whether a batch is journalled, by its index."""
        return self._start >= 0

    def get(self, batch: int) -> BatchRecord | None:
        """The record of a batch, or None where it isn't journalled."""
        return self[batch] if self._start[batch] >= 0 else None

    def __getitem__(self, batch: int) -> BatchRecord:
        """The record of a batch that is journalled."""
        return self._files[self._file[batch]].at(int(self._start[batch]))

"""Encoded rows kept on disk: appended batch by batch, then mapped into memory.

The two matrices lie in temporary files without a name, so that nothing is left of them however the
process ends; labels, groups and row weights, 4 to 16 bytes a row, stay in memory. Mapped pages are
the kernel's to drop; `release` gives them back, so that the resident memory of a long pass is that
of what it read since.
"""

from __future__ import annotations

import mmap
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model.rows import Rows


class RowStore:
    """Takes rows one after another.

    Args:
        index: empty file for the indices.
        weight: empty file for the weights, if there will be any.
    """

    def __init__(self, index: IO[bytes], weight: IO[bytes]) -> None:
        self._index = index
        self._weight = weight
        self._parts: list[Rows] = []
        self._slots = 0
        self._is_weighted = False

    def append(self, rows: Rows) -> None:
        """Add rows behind those that are there.

        Raises:
            OSError: there is no room.
        """
        self._slots = rows.index.shape[1]
        self._index.write(rows.index.data)
        if rows.weight is not None:
            self._is_weighted = True
            self._weight.write(rows.weight.data)
        # A view of the index, however short, would keep all of it in memory.
        none = np.empty((0, 0), np.int32)
        self._parts.append(Rows(none, None, rows.label, rows.group, rows.row_weight))

    def rows(self) -> Rows:
        """All of them; what is written into the arrays is never written to the files."""
        if not self._parts:
            return Rows(np.empty((0, 0), np.int32), None, np.empty(0, np.float32), None, None)
        shape = (-1, self._slots)
        weight = None
        if self._is_weighted:
            weight = _mapped(self._weight, np.float32).reshape(shape)
        return Rows(
            _mapped(self._index, np.int32).reshape(shape),
            weight,
            *(_joined([part.parts()[place] for part in self._parts]) for place in (2, 3, 4)),
        )


def _mapped(file: IO[bytes], kind: type[Any]) -> NDArray[Any]:
    file.flush()
    return np.frombuffer(mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE), kind)


def _joined(parts: list[Any]) -> Any:
    return None if parts[0] is None else np.concatenate(parts)

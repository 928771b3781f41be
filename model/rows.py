"""Encoded rows of a click log, in memory or mapped from a file."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A pass over all rows holds at most so many of them resident.
_PASS_ROWS = 1 << 20


@dataclass(frozen=True)
class Rows:
    """Encoded rows of a click log, context slots first, then candidate slots.

    Args:
        index: `[rows, slots]` int32.
        weight: `[rows, slots]` float32, or None when both sides are unweighted.
        label: `[rows]` float32, 0 or 1.
        group: `[rows]` int64, equal inside a group; None without a group column.
        row_weight: `[rows]` float32; None without a weight column.
    """

    index: NDArray[np.int32]
    weight: NDArray[np.float32] | None
    label: NDArray[np.float32]
    group: NDArray[np.int64] | None
    row_weight: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's index and weight."""
        return int(self.index.shape[1]) * (4 if self.weight is None else 8)

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The given rows, in that order."""
        chosen: list[Any] = [None if part is None else part[rows] for part in self.parts()]
        return Rows(*chosen)

    def counts(self, size: int) -> NDArray[np.int64]:
        """How many rows hold each of `size` indices; padding and zero weights are not counted."""
        total = np.zeros(size, np.int64)
        for part in self._slices():
            index, weight = self.index[part], None if self.weight is None else self.weight[part]
            held = index if weight is None else index[weight != 0]
            total += np.bincount(held.ravel(), minlength=size)
        return total

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all of it."""
        digest = hashlib.sha256()
        for array in self.parts():
            if array is None:
                digest.update(b"none")
                continue
            for part in self._slices():
                digest.update(np.ascontiguousarray(array[part]).data)
        return digest.hexdigest()

    def parts(self) -> tuple[Any, ...]:
        """The arrays in the order of the arguments."""
        return self.index, self.weight, self.label, self.group, self.row_weight

    def release(self) -> None:
        """Give back the memory of what was read from a file; it is read again when needed."""
        for array in (self.index, self.weight):
            base: Any = array
            while isinstance(base, np.ndarray):
                base = base.base
            if isinstance(base, memoryview):
                base = base.obj
            if isinstance(base, mmap.mmap):
                base.madvise(mmap.MADV_DONTNEED)

    def _slices(self) -> Iterator[slice]:
        for start in range(0, len(self), _PASS_ROWS):
            yield slice(start, start + _PASS_ROWS)
            self.release()

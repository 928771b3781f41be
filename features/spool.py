"""A click log parsed once: its batches in Arrow's own form in a temporary file, mapped to be read.

Fitting, cutting and encoding each go over the log; parsing text costs more than all of them. The
file has no name, so that nothing is left of it however the process ends.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from features.log import Batch, ClickLog
from features.parallel import ordered_map


@dataclass(frozen=True)
class _Part:
    """Where one batch came from, and where it lies in the file."""

    path: str
    first_row: int
    rows: int
    begin: int
    end: int


class Spool:
    """The rows of a click log, as often as needed.

    Args:
        log: is read here, once.
        categories: text columns that hold one category per row; each batch keeps every distinct
            text of theirs once.
        folder: where the temporary file lies.

    Raises:
        DataError: as `ClickLog.batches`.
        OSError: there is no room.
    """

    def __init__(self, log: ClickLog, categories: Collection[str], folder: Path | None) -> None:
        self.location = log.location
        self._parts: list[_Part] = []
        with tempfile.TemporaryFile(dir=folder) as file:
            for batch in ordered_map(lambda one: _coded(one, categories), log.batches()):
                begin, table = file.tell(), batch.table
                with pa.ipc.new_stream(file, table.schema) as writer:
                    writer.write_batch(table)
                place = (batch.path, batch.first_row, table.num_rows, begin, file.tell())
                self._parts.append(_Part(*place))
            file.flush()
            self._bytes = pa.py_buffer(b"")
            if self._parts:
                self._bytes = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(part.rows for part in self._parts)

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """As `ClickLog.batches`."""
        row = 0
        for part in self._parts:
            low = max(start - row, 0)
            high = part.rows if stop is None else min(stop - row, part.rows)
            row += part.rows
            if high > low:
                raw = self._bytes.slice(part.begin, part.end - part.begin)
                with pa.ipc.open_stream(raw) as reader:
                    table = reader.read_next_batch()
                yield Batch(part.path, part.first_row + low, table.slice(low, high - low))


def _coded(batch: Batch, categories: Collection[str]) -> Batch:
    table = batch.table
    columns = [
        column.dictionary_encode() if name in categories and pa.types.is_string(column.type)
        else column
        for name, column in zip(table.schema.names, table.columns, strict=True)
    ]  # fmt: skip
    coded = pa.RecordBatch.from_arrays(columns, names=table.schema.names)
    return Batch(batch.path, batch.first_row, coded)

"""A click log parsed once: its batches in Arrow's own form in memory and in a temporary file.

Fitting, cutting and encoding each go over the log; parsing text costs more than all of them. The
first `MOST_HELD` bytes of batches stay in memory, the others go to the file, which has no name, so
that nothing is left of it however the process ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow as pa

from features.log import Batch, ClickLog
from features.parallel import ordered_map

MOST_HELD = 256 << 20


@dataclass(frozen=True)
class _Part:
    """Where one batch came from, and the batch or where it lies in the file."""

    path: str
    first_row: int
    rows: int
    held: pa.RecordBatch | None
    begin: int
    end: int


class Spool:
    """The rows of a click log, as often as needed.

    Args:
        log: is read here, once; of its category columns each batch keeps every distinct text once.
        file: to write to; the reader's until it is done with the spool.

    Raises:
        DataError: as `ClickLog.batches`.
        OSError: there is no room.
    """

    def __init__(self, log: ClickLog, file: IO[bytes]) -> None:
        self.location = log.location
        self._parts: list[_Part] = []
        self._file = file
        categories = {name for name, kind in log.columns.items() if kind == "category"}
        held = 0
        for batch in ordered_map(lambda one: _coded(one, categories), log.batches()):
            begin, table = self._file.tell(), batch.table
            held += table.get_total_buffer_size()
            is_held = held <= MOST_HELD
            if not is_held:
                with pa.ipc.new_stream(self._file, table.schema) as writer:
                    writer.write_batch(table)
            place = (table if is_held else None, begin, self._file.tell())
            self._parts.append(_Part(batch.path, batch.first_row, table.num_rows, *place))
        self._file.flush()

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
                table = self._read(part) if part.held is None else part.held
                yield Batch(part.path, part.first_row + low, table.slice(low, high - low))

    def _read(self, part: _Part) -> pa.RecordBatch:
        raw = os.pread(self._file.fileno(), part.end - part.begin, part.begin)
        with pa.ipc.open_stream(raw) as reader:
            return reader.read_next_batch()


def _coded(batch: Batch, categories: set[str]) -> Batch:
    table = batch.table
    columns = [
        column.dictionary_encode() if name in categories and pa.types.is_string(column.type)
        else column
        for name, column in zip(table.schema.names, table.columns, strict=True)
    ]  # fmt: skip
    coded = pa.RecordBatch.from_arrays(columns, names=table.schema.names)
    return Batch(batch.path, batch.first_row, coded)

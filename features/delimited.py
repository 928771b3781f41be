"""CSV and TSV bytes -> Arrow batches, blocks of lines parsed side by side.

A line break can only stand inside a cell that is quoted. Blocks without a quote are therefore cut
at line breaks and parsed in threads, plain ones by `features.plain`, others by Arrow; from the
first quote below the header on, Arrow's streaming reader takes the file, which knows about quotes
and uses one core.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv

from features.parallel import ordered_map
from features.plain import CODED, PlainReader

BLOCK_BYTES = 32 << 20
# Within a block Arrow goes on in pieces that fit into a core's cache: three times as fast.
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Delimited:
    """How the cells of one file are read.

    Args:
        separator: between cells.
        header: all column names, in the order of the file.
        types: Arrow type of each column that is read: float64, string, or `CODED` for texts of
            which each batch shall hold the distinct ones once.
        batch_rows: at most so many rows in a batch.
    """

    separator: str
    header: Sequence[str]
    types: Mapping[str, pa.DataType]
    batch_rows: int

    def read(self, open_source: Callable[[], Any]) -> Iterator[pa.RecordBatch]:
        """The rows in order.

        Args:
            open_source: opens the bytes, decompressed, from the start.

        Raises:
            pa.ArrowInvalid: a row has too few or too many cells, or a cell is of another type.
        """
        rows = 0
        blocks = _PlainBlocks(open_source)
        try:
            for batches in ordered_map(self._parse, blocks):
                for batch in batches:
                    rows += batch.num_rows
                    yield batch
            if not blocks.complete:
                yield from self._rest(open_source, rows)
        except _Unreadable as error:
            raise pa.ArrowInvalid(self._named(error.numbered(rows))) from error
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(self._named(str(error))) from error

    def _named(self, reason: str) -> str:
        """What Arrow says, with the names of columns in place of their numbers."""
        return re.sub(r"CSV column #(\d+)", lambda n: f"column '{self.header[int(n[1])]}'", reason)

    def _parse(self, block: pa.Buffer) -> list[pa.RecordBatch]:
        plain = PlainReader(self.separator, self.header, self.types).read(block, self.batch_rows)
        if plain is not None:
            return plain
        try:
            table = pa.csv.read_csv(
                pa.BufferReader(block),
                read_options=pa.csv.ReadOptions(
                    use_threads=False, block_size=_PIECE_BYTES, column_names=self.header
                ),
                parse_options=pa.csv.ParseOptions(delimiter=self.separator),
                convert_options=self._conversion(),
            )
        except pa.ArrowInvalid as error:
            raise _Unreadable(str(error)) from error
        return self._cut(table.combine_chunks().to_batches()[0]) if table.num_rows else []

    def _rest(self, open_source: Callable[[], Any], rows: int) -> Iterator[pa.RecordBatch]:
        with (
            open_source() as source,
            pa.csv.open_csv(
                source,
                read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self.separator, newlines_in_values=True
                ),
                convert_options=self._conversion(),
            ) as reader,
        ):
            for batch in reader:
                passed = min(rows, batch.num_rows)
                rows -= passed
                yield from self._cut(batch.slice(passed))

    def _cut(self, rows: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Batches of at most `batch_rows`, texts coded as `types` says."""
        size = self.batch_rows
        batches = (rows.slice(low, size) for low in range(0, rows.num_rows, size))
        return [
            pa.RecordBatch.from_arrays(
                [
                    column.dictionary_encode() if self.types[name] == CODED else column
                    for name, column in zip(self.types, batch.columns, strict=True)
                ],
                names=list(self.types),
            )
            for batch in batches
        ]

    def _conversion(self) -> pa.csv.ConvertOptions:
        return pa.csv.ConvertOptions(
            column_types={
                name: pa.string() if kind == CODED else kind for name, kind in self.types.items()
            },
            null_values=[""],
            strings_can_be_null=True,
            include_columns=list(self.types),
        )


class _PlainBlocks:
    """Whole lines below the header, until the end or the first quote; `complete` says which."""

    def __init__(self, open_source: Callable[[], Any]) -> None:
        self.open_source = open_source
        self.complete = False

    def __iter__(self) -> Iterator[pa.Buffer]:
        with self.open_source() as source:
            if isinstance(source, pa.MemoryMappedFile) and source.size():
                yield from self._mapped(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
            else:
                yield from self._read(source)

    def _mapped(self, text: mmap.mmap) -> Iterator[pa.Buffer]:
        """Without a copy; what was parsed is not kept resident."""
        begin, whole = text.find(b"\n") + 1, pa.py_buffer(text)
        if not _is_one_line(text[:begin]):
            return
        while begin < len(text):
            end = begin + BLOCK_BYTES
            cut = len(text) if end >= len(text) else text.rfind(b"\n", begin, end) + 1
            if not cut or text.find(b'"', begin, cut) >= 0:
                return
            yield whole.slice(begin, cut - begin)
            text.madvise(mmap.MADV_DONTNEED)
            begin = cut
        self.complete = True

    def _read(self, source: Any) -> Iterator[pa.Buffer]:
        block = source.read(BLOCK_BYTES)
        begin = block.find(b"\n") + 1
        if not _is_one_line(block[:begin]):
            return
        while True:
            more = source.read(BLOCK_BYTES)
            cut = block.rfind(b"\n") + 1 if more else len(block)
            if (more and not cut) or block.find(b'"', begin) >= 0:
                return
            if cut > begin:
                yield pa.py_buffer(block).slice(begin, cut - begin)
            if not more:
                break
            block, begin = block[cut:] + more, 0
        self.complete = True


def _is_one_line(header: bytes) -> bool:
    """Whether what ends in the first line feed is the header, the whole of it and nothing else."""
    ends = b"\r" not in header.removesuffix(b"\n").removesuffix(b"\r")
    return bool(header) and ends and header.count(b'"') % 2 == 0


class _Unreadable(Exception):
    """What Arrow says of a block, its rows counted from 1 within the block."""

    def numbered(self, before: int) -> str:
        """The same with rows counted from 0 in the file, `before` of them before the block."""
        return re.sub(
            r"[Rr]ow #(\d+)", lambda found: f"row {before + int(found[1]) - 1}", str(self)
        )

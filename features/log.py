"""The click log on disk: one or many Parquet, CSV or TSV files, read in order and in chunks.

Files of a folder or glob are taken in the order of their paths, rows in the order of the file, so
that two readings of one location number the rows alike. In CSV and TSV every category is read as
text (`01` keeps its zero) and an empty cell is missing.
"""

from __future__ import annotations

import csv
import difflib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.parquet

from features.delimited import Delimited
from features.errors import DataError
from features.plain import CODED

# What a column holds: a number, one category a row (in CSV and TSV: text, each batch's distinct
# ones once), or anything else (in CSV and TSV: text).
Kind = Literal["number", "category", "any"]

# Spreadsheets begin their files with a byte order mark, which is no part of the first name.
_AS_TEXT = {"compression": "infer", "newline": "", "encoding": "utf-8-sig"}
_SEPARATORS = {"csv": ",", "tsv": "\t"}
BATCH_ROWS = 131_072
# What Arrow, fsspec, csv and the decompressors under them (EOFError: a file cut short; zlib.error:
# a damaged one) raise for a file that is missing, damaged, of another form or no UTF-8, or that has
# lists with more than 2 GiB of text in a batch (ArrowNotImplementedError; no test is that large);
# anything else is a fault of ours and keeps its traceback.
_UNREADABLE = (
    pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError, UnicodeError, zlib.error,
    csv.Error,
)  # fmt: skip
_TYPES = {"number": pa.float64(), "category": CODED, "any": pa.string()}


@dataclass(frozen=True)
class ClickLog:
    """Rows at one location.

    Args:
        location: file, folder, glob or fsspec URL of Parquet, CSV or TSV files.
        columns: what to read, name -> kind.
        keep_others: also read columns not named in `columns`, and go without absent ones.
    """

    location: str
    columns: Mapping[str, Kind]
    keep_others: bool = False

    def files(self) -> list[str]:
        """Paths of the files, in reading order.

        Raises:
            DataError: nothing lies there.
        """
        try:
            system, path = fsspec.core.url_to_fs(self.location)
            if system.isdir(path):
                paths = [name for name in system.find(path) if _format_of(name)]
            elif system.exists(path):
                paths = [path]
            else:
                paths = [name for name in system.glob(path) if _format_of(name)]
        except (OSError, ValueError, ImportError) as error:
            raise DataError(f"{self.location}: cannot be read: {error}") from error
        if not paths:
            raise DataError(f"{self.location}: no such file, or no Parquet, CSV or TSV file there")
        return sorted(paths)

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Batches of at most `BATCH_ROWS` rows of the half-open row range.

        Raises:
            DataError: a file cannot be read, or lacks a column.
        """
        row = 0
        for path in self.files():
            file_row = 0
            for table in self._read(path):
                low = max(start - row, 0)
                high = table.num_rows if stop is None else min(stop - row, table.num_rows)
                if high > low:
                    yield Batch(path, file_row + low, table.slice(low, high - low))
                row += table.num_rows
                file_row += table.num_rows
                if stop is not None and row >= stop:
                    return

    def _read(self, path: str) -> Iterator[pa.RecordBatch]:
        form = _format_of(path)
        system, _ = fsspec.core.url_to_fs(self.location)
        is_local = "file" in _protocols(system)
        try:
            if form == "parquet":
                with system.open(path, "rb", compression="infer") as file:
                    # A local path lets Arrow map the file.
                    yield from self._read_parquet(path, path if is_local else file)
            elif form in _SEPARATORS:
                with system.open(path, "rt", **_AS_TEXT) as text:
                    header = next(csv.reader(text, delimiter=_SEPARATORS[form]), [])
                rows = self._delimited(path, _SEPARATORS[form], header)
                yield from rows.read(partial(_open, system, path))
            else:
                raise DataError(f"{path}: not a .parquet, .csv or .tsv file")
        except _UNREADABLE as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"{path}: cannot be read: {reason}") from error

    def _read_parquet(self, path: str, source: Any) -> Iterator[pa.RecordBatch]:
        with pa.parquet.ParquetFile(source, memory_map=isinstance(source, str)) as file:
            names = self._present(path, file.schema_arrow.names)
            yield from file.iter_batches(BATCH_ROWS, columns=names)

    def _delimited(self, path: str, separator: str, header: Sequence[str]) -> Delimited:
        # Inferring a type from the first block breaks on a later one: all else is text.
        types = {
            name: _TYPES[self.columns.get(name, "any")] for name in self._present(path, header)
        }
        return Delimited(separator, header, types, BATCH_ROWS)

    def _present(self, path: str, names: Sequence[str]) -> list[str]:
        absent = [name for name in self.columns if name not in names]
        if absent and not self.keep_others:
            raise DataError(no_column(path, absent[0], names))
        read = names if self.keep_others else self.columns
        for name in read:
            if names.count(name) > 1:
                raise DataError(f"{path}: column '{name}' occurs twice")
        return list(read)


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of one file.

    Args:
        path: the file.
        first_row: number of the first row in the file, from 0 (a CSV header is not a row).
        table: the rows.
    """

    path: str
    first_row: int
    table: pa.RecordBatch

    @property
    def is_text(self) -> bool:
        """Whether the file is CSV or TSV, where a list is one cell."""
        return _format_of(self.path) in _SEPARATORS

    def place(self, row: int) -> str:
        """Where row `row` of this batch is found: for error messages."""
        return f"{self.path}: row {self.first_row + row}"


def no_column(path: str, wanted: str, names: Sequence[str]) -> str:
    """Says that a file lacks a column, and which of its own may be meant."""
    near = difflib.get_close_matches(wanted, names, 1)
    if near:
        hint = f"the nearest is '{near[0]}'"
    else:
        hint = f"its columns are {', '.join(names[:20])}" if names else "it has no column at all"
    return f"{path}: has no column '{wanted}'; {hint}"


def _open(system: Any, path: str) -> Any:
    """The bytes of a CSV or TSV file, decompressed."""
    if "file" not in _protocols(system):
        return system.open(path, "rb", compression="infer")
    if path.lower().endswith(tuple(_SEPARATORS)):
        return pa.memory_map(path)
    # Arrow undoes compressions that fsspec does not know.
    return pa.input_stream(path, compression="detect")


def _protocols(system: Any) -> tuple[str, ...]:
    protocol = system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _format_of(path: str) -> str | None:
    name = path.lower()
    for compression in (".gz", ".bz2", ".zst"):
        name = name.removesuffix(compression)
    suffix = name.rpartition(".")[2]
    return suffix if suffix == "parquet" or suffix in _SEPARATORS else None

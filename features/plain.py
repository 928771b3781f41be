"""A block of plain CSV -> Arrow batches by `_cells.h`, which also finds their distinct texts.

What plain is stands there. Where the compiled module was not built (no compiler, no module) no
block is plain, and Arrow reads them all, in about twice the time; tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

try:
    from features import _texts
except ImportError:
    IS_COMPILED = False
else:
    IS_COMPILED = True

CODED = pa.dictionary(pa.int32(), pa.string())
_SKIPPED, _NUMBER, _TEXT = range(3)  # as in _cells.h


class PlainReader:
    """Reads blocks of whole lines; immutable.

    Args:
        separator: between cells.
        header: all column names, in the order of the file.
        types: of each column that is read: float64, string or `CODED`.
    """

    def __init__(
        self, separator: str, header: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> None:
        self.separator = ord(separator)
        self.types = types
        self.read_columns = [name for name in header if name in types]
        self.numbers = [name for name in self.read_columns if types[name] == pa.float64()]
        self.texts = [name for name in self.read_columns if types[name] != pa.float64()]
        self.kinds = bytes(
            _SKIPPED if name not in types else _NUMBER if types[name] == pa.float64() else _TEXT
            for name in header
        )

    def read(self, block: pa.Buffer, most: int) -> list[pa.RecordBatch] | None:
        """Batches of at most `most` rows, or None if a cell of the block is not plain."""
        if not IS_COMPILED:
            return None
        batches = []
        begin = 0
        while begin < block.size:
            rows, stop = _texts.count_lines(block, begin, most)
            batch = self._piece(block, begin, stop, rows)
            if batch is None:
                return None
            batches.append(batch)
            begin = stop
        return batches

    def _piece(self, block: pa.Buffer, begin: int, stop: int, rows: int) -> pa.RecordBatch | None:
        numbers = np.empty((len(self.numbers), rows), np.float64)
        codes = np.empty((len(self.texts), rows), np.int32)
        validity = np.zeros((len(self.read_columns), (rows + 7) // 8), np.uint8)
        place = (block, begin, stop, self.separator, self.kinds, rows)
        found = _texts.read_cells(*place, numbers, codes, validity)
        if found is None:
            return None
        distinct = [_strings(bounds, text) for bounds, text in found]
        if None in distinct:
            return None
        columns = {}
        next_number, next_text = count(), count()
        for name, valid in zip(self.read_columns, validity, strict=True):
            if self.types[name] == pa.float64():
                columns[name] = _array(pa.float64(), valid, numbers[next(next_number)])
                continue
            at = next(next_text)
            coded = pa.DictionaryArray.from_arrays(
                _array(pa.int32(), valid, codes[at]), distinct[at], safe=False
            )
            is_coded = self.types[name] == CODED
            columns[name] = coded if is_coded else coded.dictionary_decode()
        return pa.RecordBatch.from_arrays([columns[n] for n in self.types], names=list(self.types))


def _array(kind: pa.DataType, valid: NDArray[Any], values: NDArray[Any]) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [pa.py_buffer(valid), pa.py_buffer(values)])


def _strings(bounds: bytes, text: bytes) -> pa.StringArray | None:
    """The texts, or None if they are no UTF-8."""
    texts = pa.StringArray.from_buffers(
        len(bounds) // 4 - 1, pa.py_buffer(bounds), pa.py_buffer(text)
    )
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return None
    return texts

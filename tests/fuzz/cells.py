"""Fuzzes the compiled reader of CSV against Arrow's, led by coverage, under sanitizers.

    python -m tests.fuzz.cells [SECONDS] [SEED]

Two promises: a block that `features/_cells.h` takes holds what Arrow reads of it; and a file gives
what Arrow's streaming reader gives, wherever it is cut into blocks. Ends with exit code 1 at the
first text that breaks one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from tests.fuzz.mutations import cut, drop, flip, repeat
from tests.fuzz.sanitized import Fuzz, fuzz_sanitized

_TYPES = {"n": "number", "c": "category", "t": "any"}
_HEADERS = [("n", "skipped", "c", "t"), ("c",), ("n",)]
_SEEDS = [
    b"1,x,abcdefgh,a\n-2.5e-3,,b,\n,,,\n0.1,y,\xc3\xa9,z\n",
    b"1,x,a,b\r\n2,x,a,b\r\n,,,c\r\n",
    b"1,x,a,b\r\n2,x,a,b\n3,x,a,b",
    b"abc\nabcd\nabcdefgh\nabcdefgi\n" + b"x" * 130 + b"\n",
    b"1\n2.25\n-7\n1e5\n123456789012345678\n",
    b'1,"x","a\nb","c ""d"""\n2,x,a,b\n',
    b"".join(b"%d,x,c%d,t%d\n" % (n, n % 7, n) for n in range(600)),
]
_TOKENS = [
    b",", b"\t", b"\n", b"\r\n", b"\r", b'"', b'""', b"\0", b"\xff", b"\xed\xa0\x80", b"\xc3",
    b"\xef\xbb\xbf", b"nan", b"inf", b"-inf", b"NULL", b"-0", b"+1", b".5", b"1.", b"1e", b"1e999",
    b"1e-320", b"9" * 15, b"9" * 16, b"9" * 400, b"0." + b"3" * 70, b" 1 ", b"0x1", b"\n\n",
    b",,,\n", b"\n,,,", b"x" * 129, b"y" * 1200, b"y" * 127 + b"z" + b"y" * 127,
]  # fmt: skip


def _insert(text: bytes, choices: random.Random) -> bytes:
    place = choices.randrange(len(text) + 1)
    return text[:place] + choices.choice(_TOKENS) + text[place + choices.randrange(3) :]


def _end_otherwise(text: bytes, choices: random.Random) -> bytes:
    text = text.replace(b"\r\n", b"\n")
    return choices.choice([text.replace(b"\n", b"\r\n"), text, text.rstrip(b"\n")])


_MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    flip, cut, drop, repeat, _insert, _insert, _insert, _end_otherwise,
]  # fmt: skip


def _mutated(text: bytes, choices: random.Random) -> bytes:
    for _ in range(choices.choice((1, 1, 2, 4))):
        text = choices.choice(_MUTATIONS)(text or b"\n", choices)
    return text[:20_000]


def _rows(
    read: Callable[[], Iterable[pa.RecordBatch] | None],
) -> list[tuple[Any, ...]] | str | None:
    """What was read, numbers by their digits because of -0 and NaN; or that it failed."""
    try:
        batches = read()
        if batches is None:
            return None
        rows: list[tuple[Any, ...]] = []
        for batch in batches:
            batch.validate(full=True)
            columns = [
                [repr(one) for one in column.to_pylist()] if column.type == pa.float64()
                else column.to_pylist()
                for column in batch.columns
            ]  # fmt: skip
            rows += zip(*columns, strict=True)
    except pa.ArrowInvalid as error:
        return "a line of more than a block" if "straddles" in str(error) else "invalid"
    return rows


def _check(text: bytes, choices: random.Random) -> bool:
    """Whether the compiled reader took the block."""
    from features import delimited, log, plain  # noqa: PLC0415

    header = choices.choice(_HEADERS)
    types = {name: log._TYPES[kind] for name, kind in _TYPES.items() if name in header}
    separator, most = choices.choice(",,,\t"), choices.choice((1, 7, 512, 100_000))
    # An array of its own: of bytes, one more would be readable behind the end.
    block = pa.py_buffer(np.frombuffer(text, np.uint8).copy())
    way = delimited.Delimited(separator, header, types, most)
    found = _rows(lambda: plain.PlainReader(separator, header, types).read(block, most))
    if found is not None and text and b'"' not in text:  # it is given no other block
        with mock.patch.object(plain, "IS_COMPILED", False):
            assert found == _rows(lambda: way._parse(block)), ("a block", header)

    if choices.random() < 0.8:  # files take far longer than blocks
        return found is not None
    ending = choices.choice((b"\n", b"\r\n"))
    whole = separator.encode().join(name.encode() for name in header) + ending + text
    small = max(len(text) // 20, choices.choice((16, 40, 333)))
    with mock.patch.object(delimited, "BLOCK_BYTES", small):
        read = _rows(lambda: list(way.read(lambda: pa.BufferReader(whole))))
    if read != "a line of more than a block":
        assert read == _rows(lambda: way._rest(lambda: pa.BufferReader(whole), 0)), (small, header)
    return found is not None


if __name__ == "__main__":
    sys.exit(
        fuzz_sanitized(
            "tests.fuzz.cells", "features._texts", lambda: Fuzz(_SEEDS, _mutated, _check)
        )
    )

"""Plain CSV comes out of the compiled pass as Arrow reads it; all else is left to Arrow."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.plain import CODED, IS_COMPILED, PlainReader

# The module is optional: no compiler, no module. The gate asserts that it was built.
pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="features._texts was not built")

HEADER = ("n", "skipped", "c", "t")
TYPES = {"t": pa.string(), "n": pa.float64(), "c": CODED}


def ours(text: bytes, most: int = 100) -> list[dict[str, Any]] | None:
    batches = PlainReader(",", HEADER, TYPES).read(pa.py_buffer(text), most)
    if batches is None:
        return None
    for batch in batches:
        batch.validate(full=True)
        assert batch.num_rows <= most
    rows: list[dict[str, Any]] = pa.Table.from_batches(map(_decoded, batches)).to_pylist()
    return rows


def _decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [c.dictionary_decode() if c.type == CODED else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def arrows(text: bytes) -> list[dict[str, Any]]:
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(column_names=HEADER),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={"t": pa.string(), "n": pa.float64(), "c": pa.string()},
            null_values=[""],
            strings_can_be_null=True,
            include_columns=list(TYPES),
        ),
    )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


NUMBERS = st.one_of(
    st.just(""),
    st.integers(-(10**18), 10**18).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-1000, 1000, places=3).map(str),
    st.sampled_from(["-0", "0.0", "007", "1e5", "1E+5", "1e22", "123456789012345.6", "9" * 40]),
)
TEXTS = st.one_of(
    st.sampled_from(["", "a", "b", "é", "abcd", "abcdefgh", "abcdefgi", "1", " a "]),
    st.text(st.characters(exclude_characters='",\r\n', exclude_categories=["Cs"]), max_size=20),
    st.integers(0, 300).map(lambda length: "x" * length + "y"),
)


@given(
    st.lists(st.tuples(NUMBERS, TEXTS, TEXTS, TEXTS), min_size=1, max_size=40),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_rows_are_those_of_arrow(rows: list[tuple[str, ...]], ending: str, is_ended: bool) -> None:
    text = (ending.join(map(",".join, rows)) + ending * is_ended).encode()
    found = ours(text, most=7)
    expected = arrows(text)
    if found is not None:
        assert found == expected
        assert _signs(found) == _signs(expected)


def _signs(rows: list[dict[str, Any]]) -> list[float]:
    """Of -0, which equals 0."""
    return [math.copysign(1, row["n"]) for row in rows if row["n"] is not None]


@pytest.mark.parametrize("number", ["", "-0", "12.5", "0.30000000000000004", "1e-5", "-7", "2E3"])
def test_usual_numbers_are_plain(number: str) -> None:
    text = f"{number},,a,b\n".encode()
    assert ours(text) == arrows(text)


@pytest.mark.parametrize("text", [b"1,,a,b\r\n", b",,,\r\n", b"1,,a,b\n2,,a,\r\n3,,a,b"])
def test_lines_may_end_in_crlf(text: bytes) -> None:
    assert ours(text) == arrows(text)


@pytest.mark.parametrize(
    "text",
    [
        b"1,,a\n",
        b"1,,a,b,c\n",
        b"1,,a,b\n\n",
        b"1,,a,b\r",
        b"1,,a\r,b\n",
        b"1,,a,b\r\r\n",
        b"1,,a,b\r2,,a,b\n",
        b"\r\n",
        b"1,,a,\xff\n",
        b"nan,,a,b\n",
        b" 1,,a,b\n",
        b"1.,,a,b\n",
        b".5,,a,b\n",
        b"-,,a,b\n",
        b"1e,,a,b\n",
        b"0x1,,a,b\n",
        b"1e999,,a,b\n",
        b"1e-320,,a,b\n",
        b"+1,,a,b\n",
    ],
)
def test_what_is_odd_is_left_to_arrow(text: bytes) -> None:
    assert ours(b"1,,a,b\n" + text) is None


def test_distinct_texts_stand_once_in_the_order_of_their_first_row() -> None:
    cells = [f"text{n * n % 4000}" for n in range(6000)]
    block = pa.py_buffer("".join(f"1,,{cell},b\n" for cell in cells).encode())
    batches = PlainReader(",", HEADER, TYPES).read(block, 10_000)
    assert batches is not None
    column = batches[0].column("c")
    assert column.to_pylist() == cells
    assert column.dictionary.to_pylist() == list(dict.fromkeys(cells))


def test_texts_that_differ_in_length_alone_are_distinct() -> None:
    heads = ["abcdefghijklmnopqrst"[:length] for length in range(1, 21)]
    cells = [head + "\0" * gaps for head in heads for gaps in range(10)]
    block = pa.py_buffer("".join(f"1,,{cell},b\n" for cell in cells * 2).encode())
    batches = PlainReader(",", HEADER, TYPES).read(block, 10_000)
    assert batches is not None
    column = batches[0].column("c")
    assert column.to_pylist() == cells * 2
    assert column.dictionary.to_pylist() == cells


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n1,,a,b", "\n1,,,"])
def test_cells_are_found_wherever_a_block_of_bytes_ends(ending: str) -> None:
    for length in range(150):
        text = f"2,{'x' * length},{'y' * (length % 11)},z{ending}".encode()
        assert ours(text) == arrows(text)

"""CSV comes out the same whether its blocks are parsed side by side or streamed."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from features import delimited
from features.errors import DataError
from features.log import ClickLog

KINDS = {"n": "number", "t": "any"}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 16)


def read(path: Path) -> list[tuple[float | None, str | None]]:
    batches = [batch.table for batch in ClickLog(str(path), KINDS).batches()]  # type: ignore[arg-type]
    rows = pa.Table.from_batches(batches).to_pylist() if batches else []
    return [(row["n"], row["t"]) for row in rows]


ROWS: list[tuple[float | None, str | None]] = [
    (float(n) if n % 5 else None, f"text{n}" if n % 3 else None) for n in range(60)
]


def lines(rows: list[tuple[float | None, str | None]]) -> list[str]:
    return [f"{'' if n is None else n},{t or ''}" for n, t in rows]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("header", ["n,t", '"n","t"'])
@pytest.mark.parametrize("last", ["", "end"])
def test_blocks_join_to_the_whole_file(tmp_path: Path, ending: str, header: str, last: str) -> None:
    text = ending.join([header, *lines(ROWS)]) + (ending if last else "")
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read(tmp_path / "a.csv") == ROWS


@pytest.mark.parametrize("place", [0, 29, 59])
def test_a_quote_anywhere_may_hold_a_line_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 100)
    rows, text = list(ROWS), lines(ROWS)
    rows[place], text[place] = (1.0, "two\nlines"), '1,"two\nlines"'
    (tmp_path / "a.csv").write_text("n,t\n" + "\n".join(text) + "\n")
    assert read(tmp_path / "a.csv") == rows


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_row_behind_a_lone_carriage_return_is_a_row(tmp_path: Path, name: str) -> None:
    with fsspec.open(tmp_path / name, "wb", compression="infer") as file:
        file.write(b"n,t\r1,a\n2,b\n")
    assert read(tmp_path / name) == [(1.0, "a"), (2.0, "b")]


@pytest.mark.parametrize("text", ["n,t\n", "n,t\n\n\n"])
def test_a_file_without_rows_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert read(tmp_path / "a.csv") == []


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("bad", ["7", "7,a,b"])
def test_a_row_of_another_length_is_named(tmp_path: Path, bad: str) -> None:
    text = lines(ROWS)
    text[41] = bad
    (tmp_path / "a.csv").write_text("n,t\n" + "\n".join(text) + "\n")
    with pytest.raises(DataError, match=r"a\.csv: cannot be read: .*row 41: Expected 2 columns"):
        read(tmp_path / "a.csv")


@pytest.mark.usefixtures("small_blocks")
def test_a_cell_that_is_no_number_is_named_by_its_row(tmp_path: Path) -> None:
    text = lines(ROWS)
    text[38] = "many,a"
    (tmp_path / "a.csv").write_text("n,t\n" + "\n".join(text) + "\n")
    with pytest.raises(DataError, match="row 38: CSV conversion error"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("text", ["a", '"a"'])
def test_a_cell_that_is_no_number_is_named_by_its_column(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(f"t,n\n{text},1\n{text},many\n")
    with pytest.raises(DataError, match=r"In column 'n': .*'many'"):
        read(tmp_path / "a.csv")

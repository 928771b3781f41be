from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import log as log_module
from features.arrow import categories, lists, numbers
from features.errors import DataError
from features.log import Batch, ClickLog, Kind

ANY: dict[str, Kind] = {"f": "any"}
NUMBER: dict[str, Kind] = {"f": "number"}


def read(location: Path | str, kinds: dict[str, Kind], **options: Any) -> list[dict[str, Any]]:
    """All rows as dicts."""
    batches = ClickLog(str(location), kinds, **options).batches()
    return [row for batch in batches for row in batch.table.to_pylist()]


def texts(batch: Batch) -> list[str | None]:
    """Categories of the column `f`, None where missing."""
    found = categories(batch, "f")
    return [None if code < 0 else found.texts[int(code)].as_py() for code in found.codes]


def only(location: Path, kinds: dict[str, Kind]) -> Batch:
    (batch,) = ClickLog(str(location), kinds).batches()
    return batch


def write_csv(path: Path, *cells: str) -> Path:
    path.write_text("\n".join(["f", *cells]) + "\n", encoding="utf-8")
    return path


def write_parquet(path: Path, values: Any, kind: Any = None) -> Path:
    pq.write_table(pa.table({"f": pa.array(values, kind)}), path)
    return path


def test_csv_categories_keep_their_leading_zero(tmp_path: Path) -> None:
    assert texts(only(write_csv(tmp_path / "a.csv", "01", "1", "1.0"), ANY)) == ["01", "1", "1.0"]


def test_csv_words_for_nothing_are_categories(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "NA", "null", "NaN", "true")
    assert texts(only(path, ANY)) == ["NA", "null", "NaN", "true"]


def test_an_empty_csv_cell_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('f,g\na,1\n,2\n"",3\n')
    assert texts(only(tmp_path / "a.csv", ANY)) == ["a", None, None]
    path = tmp_path / "b.csv"
    path.write_text("f,g\n1.5,1\n,2\n")
    found = numbers(only(path, NUMBER), "f")
    assert found[0] == 1.5
    assert np.isnan(found[1])


def test_an_empty_text_of_parquet_is_a_category(tmp_path: Path) -> None:
    assert texts(only(write_parquet(tmp_path / "a.parquet", ["", None, "a"]), ANY)) == [
        "",
        None,
        "a",
    ]


def test_nan_of_a_parquet_category_is_missing(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [1.0, float("nan"), None])
    assert texts(only(path, ANY)) == ["1", None, None]


def test_a_dictionary_column_is_read_as_its_values(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"f": pa.array(["b", None, "a", "b"]).dictionary_encode()}), path)
    assert texts(only(path, ANY)) == ["b", None, "a", "b"]


def test_quotes_separators_and_line_breaks_stay_inside_a_cell(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('f,g\n"a,""b""\nc",1\n')
    assert texts(only(tmp_path / "a.csv", ANY)) == ['a,"b"\nc']


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbff\nx\n")
    assert texts(only(tmp_path / "a.csv", ANY)) == ["x"]


def test_tsv_is_parted_at_tabs(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("f\tg\na,b\t2\n")
    kinds: dict[str, Kind] = {"f": "any", "g": "number"}
    assert read(tmp_path / "a.tsv", kinds) == [{"f": "a,b", "g": 2.0}]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_gzip_is_undone(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}.gz"
    path.write_bytes(gzip.compress(b"f\n01\n"))
    batch = only(path, ANY)
    assert batch.is_text
    assert texts(batch) == ["01"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_url_is_read_as_a_file_is(tmp_path: Path, name: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["01"])
    if "csv" in name:
        path = write_csv(tmp_path / "a.csv", "01")
    content = path.read_bytes()
    with fsspec.open(f"memory://log/{name}", "wb") as file:
        file.write(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(f"memory://log/{name}", ANY) == [{"f": "01"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two days in one folder, written in another order, and a file of another kind."""
    (tmp_path / "day=2").mkdir()
    write_csv(tmp_path / "day=2" / "b.csv", "c", "d")
    (tmp_path / "day=1").mkdir()
    write_parquet(tmp_path / "day=1" / "a.parquet", ["a", "b"])
    (tmp_path / "README.md").write_text("no log")
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_paths(folder: Path) -> None:
    assert [row["f"] for row in read(folder, ANY)] == ["a", "b", "c", "d"]


def test_a_glob_is_read_in_the_order_of_its_paths(folder: Path) -> None:
    assert [row["f"] for row in read(folder / "day=*" / "*", ANY)] == ["a", "b", "c", "d"]
    assert [row["f"] for row in read(folder / "*" / "*.csv", ANY)] == ["c", "d"]


def test_rows_are_numbered_within_their_file(folder: Path) -> None:
    places = [batch.place(1) for batch in ClickLog(str(folder), ANY).batches()]
    assert places == [f"{folder}/day=1/a.parquet: row 1", f"{folder}/day=2/b.csv: row 1"]


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, None), (3, 99), (2, 2), (9, None)])
def test_a_range_of_rows_runs_across_files(folder: Path, start: int, stop: int | None) -> None:
    found = [
        row["f"]
        for batch in ClickLog(str(folder), ANY).batches(start, stop)
        for row in batch.table.to_pylist()
    ]
    assert found == ["a", "b", "c", "d"][start:stop]


def test_a_sliced_batch_knows_its_first_row(folder: Path) -> None:
    batches = ClickLog(str(folder), ANY).batches(start=3)
    assert [batch.place(0) for batch in batches] == [f"{folder}/day=2/b.csv: row 1"]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "BATCH_ROWS", 3)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_long_file_comes_in_batches(tmp_path: Path, name: str) -> None:
    cells = [f"c{row}" for row in range(8)]
    if name == "a.csv":
        write_csv(tmp_path / name, *cells)
    else:
        write_parquet(tmp_path / name, cells)
    batches = list(ClickLog(str(tmp_path / name), ANY).batches())
    assert [batch.table.num_rows for batch in batches] == [3, 3, 2]
    assert [batch.first_row for batch in batches] == [0, 3, 6]
    assert [text for batch in batches for text in texts(batch)] == cells


def test_only_the_wanted_columns_are_read_in_the_wanted_order(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet"):
        if name == "a.csv":
            (tmp_path / name).write_text("x,f,g\n0,1,2\n")
        else:
            pq.write_table(pa.table({"x": [0], "f": [1], "g": [2]}), tmp_path / name)
        (batch,) = ClickLog(str(tmp_path / name), {"g": "number", "f": "number"}).batches()
        assert batch.table.schema.names == ["g", "f"]


def test_other_columns_can_be_kept_and_absent_ones_done_without(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,f\n01,2\n")
    kinds: dict[str, Kind] = {"f": "number", "absent": "number"}
    assert read(tmp_path / "a.csv", kinds, keep_others=True) == [{"x": "01", "f": 2.0}]


def test_list_separator_parts_csv_cells_and_drops_empty_elements(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "a;b", "a|b", ";c;", ";")
    found = lists(only(path, ANY), "f", ";")
    assert [found.values.texts[int(code)].as_py() for code in found.values.codes] == [
        "a",
        "b",
        "a|b",
        "c",
    ]
    assert found.lengths.tolist() == [2, 1, 1, 0]


def test_parquet_lists_drop_null_and_keep_empty_elements(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [["a", None, ""], [], None, ["b"]])
    found = lists(only(path, ANY), "f", "|")
    assert [found.values.texts[int(code)].as_py() for code in found.values.codes] == ["a", "", "b"]
    assert found.lengths.tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("values", [["a"], [1]])
def test_a_parquet_column_of_single_values_is_no_list(tmp_path: Path, values: list[Any]) -> None:
    path = write_parquet(tmp_path / "a.parquet", values)
    with pytest.raises(DataError, match=r"a\.parquet: column 'f' holds .*expected lists"):
        lists(only(path, ANY), "f", "|")


def test_a_number_column_of_csv_refuses_text(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "1", "many")
    with pytest.raises(DataError, match=r"a\.csv: cannot be read: .*'many'"):
        read(path, NUMBER)


@pytest.mark.parametrize("values", [["a"], [True], [["a"]]])
def test_a_number_column_of_parquet_refuses_other_kinds(tmp_path: Path, values: list[Any]) -> None:
    path = write_parquet(tmp_path / "a.parquet", values)
    with pytest.raises(DataError, match=r"a\.parquet: column 'f' holds .*expected numbers"):
        numbers(only(path, NUMBER), "f")


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(9, 2)])
def test_every_number_type_of_parquet_is_read(tmp_path: Path, kind: Any) -> None:
    path = write_parquet(tmp_path / "a.parquet", [1, None], kind)
    assert numbers(only(path, NUMBER), "f")[0] == 1.0


def test_a_category_beyond_2_53_is_named_by_its_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [1, None, 2**60, 2**60])
    with pytest.raises(DataError, match=r"a\.parquet: row 2: column 'f': .*2\^53"):
        categories(only(path, ANY), "f")


def test_a_list_element_beyond_2_53_is_named_by_its_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [[1, 2], [], [3, 2**60]])
    with pytest.raises(DataError, match=r"a\.parquet: row 2: column 'f': .*2\^53"):
        lists(only(path, ANY), "f", "|")


def test_a_column_of_dates_is_no_category(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0], pa.timestamp("s"))
    with pytest.raises(DataError, match="expected texts, numbers or booleans"):
        categories(only(path, ANY), "f")


def test_a_column_of_nothing_is_missing(tmp_path: Path) -> None:
    batch = only(write_parquet(tmp_path / "a.parquet", [None, None]), ANY)
    assert texts(batch) == [None, None]
    assert lists(batch, "f", "|").lengths.tolist() == [0, 0]
    assert np.isnan(numbers(batch, "f")).all()


@pytest.mark.parametrize(
    ("wanted", "hint"), [("ff", "the nearest is 'f'"), ("g", "its columns are f")]
)
def test_an_absent_column_names_a_near_one_or_those_there_are(
    tmp_path: Path, wanted: str, hint: str
) -> None:
    path = write_csv(tmp_path / "a.csv", "x")
    with pytest.raises(DataError, match=rf"a\.csv: has no column '{wanted}'; {hint}"):
        read(path, {wanted: "any"})


def test_an_empty_file_has_no_column_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match=r"a\.csv: has no column 'f'; it has no column at all"):
        read(tmp_path / "a.csv", {"f": "any"})


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("f,f\n1,2\n")
    pq.write_table(pa.table([[1], [2]], names=["f", "f"]), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(DataError, match="column 'f' occurs twice"):
            read(tmp_path / name, ANY)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"PAR1 and no more"),
        ("a.csv", b"f\n1,2\n"),
        ("a.csv", b"f\n\xff\xfe\n"),
        ("a.csv.gz", b"no gzip"),
        ("a.csv.gz", gzip.compress(b"f\n1\n")[:-12]),
        ("a.csv.gz", gzip.compress(b"f\n1\n")[:8]),
        ("a.csv.gz", gzip.compress(b"f\n1\n")[:10] + b"\xff" * 20),
        ("a.csv", b""),
        ("a.csv", b"f" * 200_000 + b"\n1\n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read(tmp_path / name, ANY)


@pytest.mark.parametrize("name", ["a[1].csv", "a?.csv", "a*.csv"])
def test_a_file_whose_name_could_be_a_glob_is_that_file(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / name, "x")
    write_csv(tmp_path / "a1.csv", "y")
    assert read(tmp_path / name, ANY) == [{"f": "x"}]


@pytest.mark.parametrize("name", ["none.csv", "empty", "none*.csv", "README.md"])
def test_where_no_log_lies_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("no log")
    with pytest.raises(DataError, match=name.replace("*", r"\*")):
        read(tmp_path / name, ANY)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(DataError, match="nosuch://a/b"):
        read("nosuch://a/b", ANY)

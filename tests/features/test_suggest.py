from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import ConfigError, DataError
from features.field_spec import CategoricalSpec, NumericSpec
from features.fit import fit_schema
from features.log import ClickLog
from features.schema import Schema
from features.spec import Spec, load_spec
from features.suggest import _model_name, suggest_spec

ROWS = 2000
RANDOM = np.random.default_rng(0)
COLUMNS: dict[str, Any] = {
    "clicked": np.arange(ROWS, dtype=np.int8) % 2,
    "request": np.arange(ROWS) // 4,
    "age": (np.arange(ROWS) // 4 % 50).astype(np.int64),
    "hour": np.arange(ROWS) // 4 % 24,
    "device": pa.array(["phone", "desk", None, "tv"] * (ROWS // 4)),
    "price": RANDOM.lognormal(size=ROWS),
    "stock": pa.array([Decimal("1.50"), Decimal(2)] * (ROWS // 2)),
    "item_id": RANDOM.integers(0, 10**6, ROWS // 2).repeat(2),
    "shop": pa.array(["a", "b"] * (ROWS // 2)).dictionary_encode(),
    "is_new": pa.array([True, None] * (ROWS // 2)),
    "tags": pa.array([["x"], ["x", "y", "z"], [], None] * (ROWS // 4)),
    "odd key.é": pa.array(["p", "q"] * (ROWS // 2)),
    "time": pa.array([datetime(2024, 1, 1)] * ROWS),
    "day": pa.array(["2024-01-01", "2024-01-02"] * (ROWS // 2)),
    "place": pa.array([{"x": 1}] * ROWS),
    "nothing": pa.nulls(ROWS, pa.string()),
    "impression": [f"i{row}" for row in range(ROWS)],
    "big_id": np.arange(ROWS) // 2 + 2**60,
    '5"': np.arange(ROWS) % 7,
}


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"clicked": [0, 1], **columns}), path)
    return path


def suggest(path: Path, group: str | None = None) -> Spec:
    """The suggested spec, written elsewhere and loaded."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / "spec.toml").write_text(suggest_spec(str(path), "clicked", group))
    return load_spec(elsewhere / "spec.toml")


def fit(spec: Spec) -> Schema:
    kinds: Any = {
        field.name: "number" if isinstance(field, NumericSpec) else "any" for field in spec.fields
    }
    return fit_schema(spec, ClickLog(spec.data.location(spec.data.train), kinds).batches())


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "shop clicks.v2.parquet"
    pq.write_table(pa.table(COLUMNS), path)
    return path


@pytest.fixture(scope="module")
def spec(log: Path) -> Spec:
    return suggest(log, "request")


def test_a_suggested_spec_can_be_fitted(spec: Spec) -> None:
    assert {field.name for field in fit(spec).fields} == {field.name for field in spec.fields}


def test_name_data_label_and_group_are_filled_in(spec: Spec, log: Path) -> None:
    assert spec.name == "shop_clicks_v2"
    assert spec.data.train == str(log)
    assert (spec.data.label, spec.data.group) == ("clicked", "request")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("age", "numeric"),
        ("price", "numeric"),
        ("stock", "numeric"),
        ("hour", "categorical"),
        ("item_id", "categorical"),
        ("device", "categorical"),
        ("shop", "categorical"),
        ("is_new", "categorical"),
        ("tags", "categorical"),
        ("odd key.é", "categorical"),
    ],
)
def test_the_column_decides_the_type(spec: Spec, name: str, kind: str) -> None:
    field = next(field for field in spec.fields if field.name == name)
    assert isinstance(field, NumericSpec if kind == "numeric" else CategoricalSpec)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("time", "timestamp"),
        ("day", "dates"),
        ("place", "struct"),
        ("nothing", "no value"),
        ("impression", "every row"),
        ("big_id", "2^53"),
        ('5"', "no quotation mark"),
    ],
)
def test_what_cannot_be_a_field_is_left_out_with_the_reason(
    spec: Spec, log: Path, name: str, reason: str
) -> None:
    assert name not in {field.name for field in spec.fields}
    line = next(
        line
        for line in suggest_spec(str(log), "clicked").splitlines()
        if line.startswith(f"# Left out: {json.dumps(name)}")
    )
    assert reason in line


def test_label_and_group_are_no_fields(spec: Spec) -> None:
    assert not {"clicked", "request"} & {field.name for field in spec.fields}


def test_lists_become_multi_fields_wide_enough(spec: Spec) -> None:
    tags = next(field for field in spec.fields if field.name == "tags")
    assert isinstance(tags, CategoricalSpec)
    assert tags.multi
    assert tags.max_values == 3


def test_each_field_says_what_was_seen(log: Path) -> None:
    text = suggest_spec(str(log), "clicked")
    assert "[fields.device]\n# 3 distinct values, 25.0% missing\n" in text
    assert "[fields.tags]\n# 3 distinct values in lists of up to 3, 50.0% missing\n" in text
    assert "[fields.age]\n# 50 distinct values, 0.0% missing, from 0 to 49\n" in text


def test_the_head_says_how_to_mark_context_fields(log: Path) -> None:
    assert 'Set side = "context" on fields of the user' in suggest_spec(str(log), "clicked")


def test_fields_constant_within_every_group_are_context(spec: Spec) -> None:
    context = {field.name for field in spec.fields if field.side == "context"}
    assert context == {"age", "hour"}


def test_without_a_group_all_fields_are_candidate(log: Path) -> None:
    assert {field.side for field in suggest(log).fields} == {"candidate"}


def test_one_candidate_field_remains(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", group=[1, 1], few=["a", "a"], tags=[["b"], ["b"]])
    sides = [field.side for field in suggest(path, "group").fields]
    assert sorted(sides) == ["candidate", "context"]


def test_groups_of_one_row_say_nothing_about_sides(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", group=[1, 2], few=["a", "a"])
    assert suggest(path, "group").fields[0].side == "candidate"


def test_csv_cells_decide_the_type(tmp_path: Path) -> None:
    rows = [f"{k % 2},0{k % 7},{k},{k}.5,x|y,{2**60 + k // 2},NA" for k in range(100)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["clicked,zip,count,price,tags,big,text", *rows]))
    spec = suggest(path)
    fit(spec)
    kinds = {field.name: field for field in spec.fields}
    numeric = {name for name, field in kinds.items() if isinstance(field, NumericSpec)}
    assert numeric == {"count", "price"}
    tags = kinds["tags"]
    assert isinstance(tags, CategoricalSpec)
    assert tags.multi


def test_whole_floats_are_categories_as_integers_are(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", user_id=pa.array([7.0, None]))
    assert isinstance(suggest(path).fields[0], CategoricalSpec)


def test_a_folder_is_read_as_one_log(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    write(folder / "1.parquet", price=[1.5, 2.5])
    write(folder / "2.parquet", price=[3.5, None])
    assert "4 distinct" not in suggest_spec(str(folder), "clicked")
    assert "# 3 distinct values, 25.0% missing" in suggest_spec(str(folder), "clicked")


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "log.parquet", price=[1.5, 2.5])
    monkeypatch.chdir(tmp_path)
    assert f'train = "{tmp_path}/log.parquet"' in suggest_spec("log.parquet", "clicked")


@pytest.mark.parametrize(
    ("path", "name"),
    [("days/*.parquet", "days"), ("days", "days"), ("days/log.CSV.gz", "log"), ("*", "model")],
)
def test_the_model_is_named_after_the_file_or_folder(path: str, name: str) -> None:
    assert _model_name(path) == name


def test_an_absent_label_names_the_nearest_column(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", price=[1.5, 2.5])
    with pytest.raises(ConfigError, match="no column 'click'; the nearest is 'clicked'"):
        suggest_spec(str(path), "click")


def test_an_absent_group_names_the_nearest_column(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", request_id=[1, 1])
    with pytest.raises(ConfigError, match="no column 'request'; the nearest is 'request_id'"):
        suggest_spec(str(path), "clicked", "request")


def test_the_group_must_not_be_the_label(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both the label and the group"):
        suggest_spec(str(write(tmp_path / "log.parquet")), "clicked", "clicked")


@pytest.mark.parametrize("bad", ["2", "yes", ""])
def test_a_label_other_than_0_and_1_is_named_by_row(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"clicked,price\n0,1.5\n1,2\n{bad},3\n")
    with pytest.raises(DataError, match=r"log\.csv: row 2: label 'clicked' is .*expected 0 or 1"):
        suggest_spec(str(path), "clicked")


def test_a_label_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", answer=[True, False], price=[1.5, 2])
    with pytest.raises(DataError, match="label 'answer' holds bool, expected numbers"):
        suggest_spec(str(path), "answer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clicked\n0\n", "no column beside the label can be a field"),
        ("clicked,price\n", "no row"),
        ("clicked,a,a\n0,1,2\n", "column 'a' occurs twice"),
    ],
)
def test_nothing_to_suggest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        suggest_spec(str(path), "clicked")


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", price=[1.5, 2.5])
    write(tmp_path / "2.parquet", price=["a", "b"])
    with pytest.raises(DataError, match="its files hold different columns"):
        suggest_spec(str(tmp_path), "clicked")

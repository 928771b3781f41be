from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.errors import DataError
from features.schema import BucketField, CategoricalField
from features.spec import spec_from_json
from model.data import read_split
from model.rows import Rows
from model.train import train
from tests.model.small import small_columns, write_small


def changed(**columns: Any) -> dict[str, Any]:
    return small_columns() | columns


def refusal(folder: Path, columns: dict[str, Any], *overrides: str) -> str:
    """The one sentence with which training refuses; nothing may be left behind."""
    spec = write_small(folder, columns, overrides)
    with pytest.raises(DataError) as caught:
        train(spec, folder / "run")
    assert sorted(path.name for path in folder.iterdir()) == ["log.parquet", "spec.toml"]
    message = caught.value.message
    assert "\n" not in message
    return message


def test_last_tenth_is_validated_on_when_no_rows_are_named(tmp_path: Path) -> None:
    split = read_split(write_small(tmp_path))
    assert (len(split.train), len(split.valid), split.test) == (180, 20, None)


@pytest.mark.parametrize("size", [3, 7, 60])
def test_cut_never_parts_a_group(tmp_path: Path, size: int) -> None:
    """The cut moves on from 180 to where a group ends."""
    split = read_split(write_small(tmp_path, changed(request=np.arange(200) // size)))
    assert split.train.group is not None
    assert split.valid.group is not None
    assert not set(split.train.group) & set(split.valid.group)
    assert len(split.train) == -(-180 // size) * size


def test_without_groups_the_cut_is_exact(tmp_path: Path) -> None:
    columns = {name: column[:199] for name, column in small_columns().items()}
    spec = write_small(tmp_path, columns)
    document = spec.to_json()
    del document["data"]["group"]
    split = read_split(spec_from_json(document))
    assert len(split.train) == 179
    assert split.train.group is None


def test_schema_is_fitted_on_the_training_rows_alone(tmp_path: Path) -> None:
    columns = small_columns()
    columns["item"] = np.where(np.arange(200) < 180, columns["item"], 99)
    columns["age"] = np.where(np.arange(200) < 180, columns["age"], 1e6)
    split = read_split(write_small(tmp_path, columns))
    age, item = split.schema.fields
    assert isinstance(age, BucketField)
    assert isinstance(item, CategoricalField)
    assert max(age.boundaries) < 100
    assert sorted(item.vocabulary) == ["0", "1", "2", "3", "4"]
    unknown = split.schema.ranges["item"][1]
    assert set(split.valid.index[:, 1].tolist()) == {unknown}


def test_rows_come_in_the_order_of_the_log(tmp_path: Path) -> None:
    columns = small_columns()
    split = read_split(write_small(tmp_path, columns))
    labels = np.r_[split.train.label, split.valid.label]
    np.testing.assert_array_equal(labels, columns["clicked"])


def test_counts_leave_out_padding_and_zero_weights() -> None:
    index, weight = np.array([[0, 1], [2, 1]], np.int32), np.array([[1, 0], [0.5, 1]], np.float32)
    label = np.zeros(2, np.float32)
    assert Rows(index, weight, label, None, None).counts(4).tolist() == [1, 1, 1, 0]
    assert Rows(index, None, label, None, None).counts(4).tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("label", [2, -1, 0.5])
def test_label_that_is_not_0_or_1_is_refused_with_its_row(tmp_path: Path, label: float) -> None:
    clicked = small_columns()["clicked"].astype(float)
    clicked[17] = label
    message = refusal(tmp_path, changed(clicked=clicked))
    assert message.endswith("log.parquet: row 17: label 'clicked' must be 0 or 1")


def test_missing_label_is_refused_with_its_row(tmp_path: Path) -> None:
    clicked = pa.array(small_columns()["clicked"], mask=np.arange(200) == 9)
    assert "row 9: label 'clicked'" in refusal(tmp_path, changed(clicked=clicked))


def test_label_that_is_text_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed(clicked=["yes"] * 200))
    assert "column 'clicked' holds string, expected numbers" in message


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_class_are_refused(tmp_path: Path, label: int) -> None:
    message = refusal(tmp_path, changed(clicked=np.full(200, label)))
    assert "log.parquet: the " in message
    assert "need both labels 0 and 1 in 'clicked'" in message


@pytest.mark.parametrize("rows", [0, 1])
def test_log_too_short_to_split_is_refused(tmp_path: Path, rows: int) -> None:
    columns = {name: column[:rows] for name, column in small_columns().items()}
    assert f"{rows} rows cannot be split" in refusal(tmp_path, columns)


def test_empty_training_log_is_refused(tmp_path: Path) -> None:
    columns = {name: column[:0] for name, column in small_columns().items()}
    message = refusal(tmp_path, columns, "data.valid=log.parquet")
    assert message.endswith("log.parquet: no training row")


def test_one_group_cannot_be_split(tmp_path: Path) -> None:
    assert "cannot be split" in refusal(tmp_path, changed(request=np.zeros(200)))


@pytest.mark.parametrize("column", ["clicked", "request", "age", "item"])
def test_missing_column_is_refused_by_name(tmp_path: Path, column: str) -> None:
    columns = small_columns()
    del columns[column]
    assert f"has no column '{column}'; its columns are" in refusal(tmp_path, columns)


def test_missing_file_is_refused_by_path(tmp_path: Path) -> None:
    message = refusal(tmp_path, small_columns(), "data.test=absent.parquet")
    assert "absent.parquet: no such file" in message


def test_missing_group_is_refused_with_its_row(tmp_path: Path) -> None:
    request = pa.array(small_columns()["request"], mask=np.arange(200) == 3)
    assert "row 3: group 'request' must not be missing" in refusal(
        tmp_path, changed(request=request)
    )


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf, 1e39])
def test_bad_row_weight_is_refused_with_its_row(tmp_path: Path, weight: float) -> None:
    weights = np.ones(200)
    weights[5] = weight
    message = refusal(tmp_path, changed(weight=weights), "data.weight=weight")
    assert "row 5: weight 'weight' must be a number from 0 to 3.4e38" in message


def test_rejected_value_is_refused_with_its_row(tmp_path: Path) -> None:
    age = pa.array(small_columns()["age"], mask=np.arange(200) == 190)
    message = refusal(tmp_path, changed(age=age), "fields.age.missing=reject")
    assert message.endswith("row 190: field 'age' is missing and must not be")


def test_fingerprint_knows_every_cell(tmp_path: Path) -> None:
    first = read_split(write_small(tmp_path)).train.fingerprint()
    assert read_split(write_small(tmp_path)).train.fingerprint() == first
    clicked = small_columns()["clicked"]
    clicked[0] = 1 - clicked[0]
    other = read_split(write_small(tmp_path, changed(clicked=clicked))).train.fingerprint()
    assert other != first

"""Parquet and CSV columns become the very columns that a request's values become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.arrow import canonical_columns
from features.canonical import canonical_text, hash_text
from features.encode import Encoder
from features.log import Batch, ClickLog
from features.schema import CategoricalField, Schema
from features.vocabulary import Vocabulary
from tests.features.encoding import encoder_of, indices, multi_field
from tests.features.strategies import lists

CANONICAL: list[tuple[Any, str]] = [
    ("1", "1"),
    (1, "1"),
    (1.0, "1"),
    (True, "true"),
    (False, "false"),
    ("01", "01"),
    (-0.0, "0"),
    (0.5, "0.5"),
    (1e16 / 2, "5000000000000000"),
    ("", ""),
    ("é", "é"),
]


@pytest.mark.parametrize(("value", "text"), CANONICAL)
def test_a_value_has_one_text_in_parquet_and_in_a_request(
    tmp_path: Path, value: Any, text: str
) -> None:
    pq.write_table(pa.table({"f": [value]}), tmp_path / "log.parquet")
    schema = Schema((CategoricalField(name="f", vocabulary=Vocabulary.of((text,))),))
    batch = next(ClickLog(str(tmp_path / "log.parquet"), {"f": "any"}).batches())
    offline, _ = canonical_columns(batch, schema.fields, schema, "|")
    encoder = Encoder(schema, "candidate", schema.build_table())
    online, _ = encoder.columns_from_values({"f": [value]})
    assert offline["f"].expanded().tolist() == online["f"].tolist()
    assert indices(encoder.encode(offline, 1)) == [2]


@pytest.mark.parametrize("text", ["1", "01", "1.0", "true", "é", " a "])
def test_a_csv_cell_is_its_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(f"f\n{text}\n", encoding="utf-8")
    schema = Schema((CategoricalField(name="f", vocabulary=Vocabulary.of((text,))),))
    batch = next(ClickLog(str(tmp_path / "log.csv"), {"f": "any"}).batches())
    offline, _ = canonical_columns(batch, schema.fields, schema, "|")
    assert offline["f"].expanded().tolist() == [hash_text(text, schema.text_seed(schema.fields[0]))]  # type: ignore[arg-type]


def test_a_float32_category_has_the_text_of_its_own_digits(tmp_path: Path) -> None:
    pq.write_table(pa.table({"f": pa.array([0.1], pa.float32())}), tmp_path / "log.parquet")
    field = CategoricalField(name="f", vocabulary=Vocabulary.of(("0.1",)))
    schema = Schema((field,))
    batch = next(ClickLog(str(tmp_path / "log.parquet"), {"f": "any"}).batches())
    columns, _ = canonical_columns(batch, schema.fields, schema, "|")
    assert indices(encoder_of(field).encode(columns, 1)) == [2]


@given(lists, st.integers(1, 4))
def test_lists_encode_alike_offline_and_online(values: Any, width: int) -> None:
    """Arrow wants lists of one type, so their canonical texts stand for the values."""
    texts = None if values is None else [None if v is None else canonical_text(v) for v in values]
    field = multi_field(max_values=width)
    schema = Schema((field,))
    table = pa.table({"f": pa.array([texts], pa.list_(pa.string()))})
    offline, cut = canonical_columns(batch_of(table), schema.fields, schema, "|")
    online, truncated = encoder_of(field).columns_from_values({"f": [values]})
    np.testing.assert_array_equal(offline["f"], online["f"])
    assert cut == truncated


def batch_of(table: pa.Table) -> Batch:
    return Batch("log.parquet", 0, table.to_batches()[0])

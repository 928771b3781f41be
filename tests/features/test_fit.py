from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from features import counts as counts_module
from features import fit as fit_module
from features import log as log_module
from features.canonical import field_seed
from features.cross import CrossField
from features.errors import DataError, SchemaError
from features.field_spec import NumericSpec
from features.fit import fit_schema
from features.log import ClickLog
from features.schema import BucketField, CategoricalField, Schema, ValueField
from features.schema_file import fingerprint
from features.spec import Spec, load_spec

Fit = Callable[..., Schema]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Fits the fields of a TOML text to columns of a log."""

    def fit_columns(fields: str, **columns: Any) -> Schema:
        pq.write_table(pa.table(columns), tmp_path / "log.parquet")
        return fit_log(spec_of(tmp_path, fields))

    return fit_columns


def spec_of(folder: Path, fields: str) -> Spec:
    (folder / "spec.toml").write_text(
        f'[data]\ntrain = "log.parquet"\nlabel = "clicked"\n{fields}', encoding="utf-8"
    )
    return load_spec(folder / "spec.toml")


def fit_log(spec: Spec) -> Schema:
    kinds: Any = {
        field.name: "number" if isinstance(field, NumericSpec) else "any" for field in spec.fields
    }
    return fit_schema(spec, ClickLog(spec.data.location(spec.data.train), kinds).batches())


def numeric(options: str = "") -> str:
    return f'[fields.f]\ntype = "numeric"\n{options}\n'


def categorical(options: str = "") -> str:
    return f'[fields.f]\ntype = "categorical"\n{options}\n'


def bucket(schema: Schema) -> BucketField:
    (field,) = schema.fields
    assert isinstance(field, BucketField)
    return field


def value(schema: Schema) -> ValueField:
    (field,) = schema.fields
    assert isinstance(field, ValueField)
    return field


def category(schema: Schema) -> CategoricalField:
    (field,) = schema.fields
    assert isinstance(field, CategoricalField)
    return field


def vocabulary(schema: Schema) -> list[str]:
    return list(category(schema).vocabulary)


WORDS = ["b"] * 3 + ["a"] * 3 + ["c"] * 5 + ["rare"] + [None]


def test_categories_come_by_count_then_by_text(fit: Fit) -> None:
    assert vocabulary(fit(categorical(), f=WORDS)) == ["c", "a", "b"]


def test_categories_rarer_than_min_count_are_unknown(fit: Fit) -> None:
    assert vocabulary(fit(categorical("min_count = 1"), f=WORDS)) == ["c", "a", "b", "rare"]
    assert vocabulary(fit(categorical("min_count = 4"), f=WORDS)) == ["c"]


def test_max_size_keeps_the_most_frequent(fit: Fit) -> None:
    assert vocabulary(fit(categorical("max_size = 2"), f=WORDS)) == ["c", "a"]


def test_a_given_vocabulary_keeps_its_order_and_is_canonical(fit: Fit) -> None:
    schema = fit(categorical('vocabulary = ["z", 7.0, true]'), f=WORDS)
    assert vocabulary(schema) == ["z", "7", "true"]


def test_rejecting_unknown_keeps_every_training_category(fit: Fit) -> None:
    assert vocabulary(fit(categorical('unknown = "reject"'), f=WORDS)) == ["c", "a", "b", "rare"]


def test_hash_buckets_need_no_vocabulary(fit: Fit) -> None:
    field = category(fit(categorical("hash_buckets = 9"), f=WORDS))
    assert len(field.vocabulary) == 0
    assert field.size == 1 + 9


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("", 2 + 3),
        ('missing = "zero"', 1 + 3),
        ('unknown = "zero"', 1 + 3),
        ('missing = "zero"\nunknown = "zero"', 3),
        ('missing = "reject"', 1 + 3),
    ],
)
def test_only_a_bucket_policy_owns_an_index(fit: Fit, options: str, size: int) -> None:
    assert category(fit(categorical(options), f=WORDS)).size == size


def test_numbers_and_their_texts_count_as_one_category(fit: Fit) -> None:
    assert vocabulary(fit(categorical(), f=[1.0, 1.0, 2.5, 2.5, float("nan")])) == ["1", "2.5"]


def test_multi_fields_count_the_values_that_are_kept(fit: Fit) -> None:
    rows = [["a", "b", "cut"], ["a", None, "b", "cut"], [], None]
    schema = fit(categorical("multi = true\nmax_values = 2"), f=rows)
    assert vocabulary(schema) == ["a", "b"]
    assert (category(schema).max_values, category(schema).pooling) == (2, "mean")


def test_a_field_without_a_frequent_category_is_all_unknown(fit: Fit) -> None:
    assert category(fit(categorical(), f=["a", "b"])).size == 2


def test_a_field_without_any_index_is_refused(fit: Fit) -> None:
    with pytest.raises(SchemaError, match="nothing to learn"):
        fit(categorical('missing = "zero"\nunknown = "zero"'), f=["a", "b"])


def test_quantile_buckets_hold_equal_shares(fit: Fit) -> None:
    field = bucket(fit(numeric("buckets = 4"), f=np.arange(1000.0)))
    assert field.boundaries == (249.5, 499.5, 749.5)
    assert field.size == 1 + 4


def test_thirty_two_buckets_are_learned_unless_told_otherwise(fit: Fit) -> None:
    assert len(bucket(fit(numeric(), f=np.arange(1000.0))).boundaries) == 31


def test_given_boundaries_are_kept(fit: Fit) -> None:
    assert bucket(fit(numeric("boundaries = [18, 25]"), f=[1.0])).boundaries == (18, 25)


def test_log_buckets_span_the_training_values(fit: Fit) -> None:
    field = bucket(fit(numeric("buckets = { log = 2 }"), f=[0.0, math.expm1(4)]))
    assert field.boundaries == pytest.approx((math.expm1(2),))


@pytest.mark.parametrize("options", ["", "buckets = { log = 4 }"])
def test_gaps_and_infinities_teach_no_boundary(fit: Fit, options: str) -> None:
    plain = fit(numeric(options), f=[1.0, 2.0, 3.0])
    gaps = fit(numeric(options), f=[1.0, math.inf, 2.0, None, math.nan, 3.0, -math.inf])
    assert fingerprint(gaps) == fingerprint(plain)


@pytest.mark.parametrize("options", ["", "buckets = { log = 4 }"])
def test_a_column_without_a_number_has_one_bucket(fit: Fit, options: str) -> None:
    field = bucket(fit(numeric(options), f=pa.nulls(3, pa.float64())))
    assert (field.boundaries, field.size) == ((), 2)


def test_a_value_field_learns_its_span_mean_and_deviation(fit: Fit) -> None:
    field = value(fit(numeric('encoding = "value"'), f=[2.0, 4.0, None, 4.0, 6.0, math.inf]))
    assert (field.minimum, field.maximum, field.mean) == (2, 6, 4)
    assert field.deviation == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("constant", [0.1, 0.0, -7.3])
def test_the_deviation_of_a_constant_counts_as_1(fit: Fit, constant: float) -> None:
    field = value(fit(numeric('encoding = "value"'), f=[constant] * 3))
    assert (field.mean, field.deviation) == (constant, 1)


def test_a_value_field_stays_within_float32(fit: Fit) -> None:
    field = value(fit(numeric('encoding = "value"'), f=[-1e308, 0.0, 1e308]))
    assert np.isfinite(np.float32(field.minimum))
    assert np.isfinite(np.float32(field.maximum))
    assert math.isfinite(field.deviation)


def test_a_value_field_needs_a_number(fit: Fit) -> None:
    with pytest.raises(DataError, match="no finite number to learn"):
        fit(numeric('encoding = "value"'), f=pa.nulls(3, pa.float64()))


def test_a_log_without_rows_is_refused(fit: Fit) -> None:
    with pytest.raises(DataError, match="no training row"):
        fit(numeric(), f=pa.array([], pa.float64()))


MIXED = (
    numeric("buckets = 7")
    + '[fields.v]\ntype = "numeric"\nencoding = "value"\n[fields.c]\ntype = "categorical"\n'
    + '[fields.m]\ntype = "categorical"\nmulti = true\nmax_values = 2\n'
)


@pytest.mark.parametrize("merge", [10, 1 << 20])
def test_fitting_in_chunks_equals_fitting_at_once(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: int
) -> None:
    random = np.random.default_rng(0)
    words = [f"w{k}" for k in random.integers(0, 30, 500)]
    columns = {
        "f": np.r_[random.normal(size=400), np.zeros(100)],
        "v": random.integers(0, 9, 500) / 4,
        "c": words,
        "m": [[word, words[-1]] if place % 3 else None for place, word in enumerate(words)],
    }
    whole = fit(MIXED, **columns)
    monkeypatch.setattr(log_module, "BATCH_ROWS", 7)
    monkeypatch.setattr(counts_module, "MERGED_AT", merge)
    assert fingerprint(fit_log(spec_of(tmp_path, MIXED))) == fingerprint(whole)


def test_fields_of_the_schema_are_those_of_the_spec_in_order(fit: Fit) -> None:
    text = (
        '[fields.b]\ntype = "numeric"\nside = "context"\nmissing = "zero"\n'
        '[fields.a]\ntype = "categorical"\nmulti = true\npooling = "sum"\n'
    )
    b, a = fit(text, b=[1.0], a=[["x"]]).fields
    assert (b.name, b.side, b.missing) == ("b", "context", "zero")
    assert (a.name, a.side, a.missing) == ("a", "candidate", "bucket")
    assert isinstance(a, CategoricalField)
    assert (a.pooling, a.max_values) == ("sum", fit_module.DEFAULT_MAX_VALUES)


def test_another_seed_is_drawn_when_two_categories_share_a_hash(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under seed 0 every text of the field hashes alike."""
    unlucky, hash_of = field_seed("f", 0), xxhash.xxh3_64_intdigest

    def digest(text: bytes, seed: int) -> int:
        return 5 if seed == unlucky else hash_of(text, seed)

    monkeypatch.setattr("features.vocabulary.IS_COMPILED", False)
    monkeypatch.setattr("features.vocabulary.xxhash.xxh3_64_intdigest", digest)
    assert fit(categorical(), f=WORDS).seed == 1


def test_a_column_of_another_kind_is_refused_by_name(fit: Fit) -> None:
    with pytest.raises(DataError, match=r"column 'f' holds .*expected numbers"):
        fit(numeric(), f=["a"])


def test_a_cross_is_on_the_candidate_side_if_any_part_is(fit: Fit) -> None:
    context = 'type = "categorical"\nside = "context"\n'
    schema = fit(
        f"[fields.x]\n{context}[fields.y]\n{context}{categorical()}"
        '[fields.xy]\ntype = "cross"\nof = ["x", "y"]\nhash_buckets = 7\n'
        '[fields.xf]\ntype = "cross"\nof = ["x", "f"]\nembedding = true\n',
        x=["a"], y=["b"], f=["c"],
    )  # fmt: skip
    assert schema.crosses == (
        CrossField(name="xy", side="context", of=("x", "y"), hash_buckets=7),
        CrossField(
            name="xf", side="candidate", of=("x", "f"), hash_buckets=1 << 20, embedding=True
        ),
    )

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from export.golden import CANDIDATES, HUGE, MOST_REQUESTS, golden_requests, probing_values
from features.bundle import Bundle
from features.encode import Encoder
from features.schema import (
    SIDES,
    BucketField,
    CategoricalField,
    Policy,
    Schema,
    ValueField,
)
from features.vocabulary import Vocabulary
from service.scorer import Scorer
from tests.export.networks import SCHEMAS

FIELDS = [
    BucketField(name="age", boundaries=(18.0, 30.0, 50.0)),
    CategoricalField(name="city", vocabulary=Vocabulary.of("abc")),
    CategoricalField(name="tags", vocabulary=Vocabulary.of("abc"), multi=True, max_values=2),
    CategoricalField(name="shop", hash_buckets=3),
]


def encoded_indices(schema: Schema) -> set[int]:
    """Every index that the golden requests reach with a weight other than 0."""
    reached: set[int] = set()
    for request in golden_requests(schema):
        rows = {
            "context": [request["context"]],
            "candidate": [item["features"] for item in request["candidates"]],
        }
        for side in SIDES:
            encoder = Encoder(schema, side, schema.build_table())
            values = {f.name: [row.get(f.name) for row in rows[side]] for f in encoder.fields}
            columns, _ = encoder.columns_from_values(values)
            encoded = encoder.encode(columns, len(rows[side]))
            held = encoded.index if encoded.weight is None else encoded.index[encoded.weight != 0]
            reached |= set(held.ravel().tolist())
    return reached


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_reserved_index_is_reached(field: Any) -> None:
    reached = encoded_indices(Schema((field,)))
    assert set(range(field.reserved)) <= reached


def test_every_bucket_of_a_few_is_reached_the_open_ends_too() -> None:
    assert encoded_indices(Schema((FIELDS[0],))) == set(range(5))  # type: ignore[arg-type]


def test_both_ends_of_many_buckets_are_reached() -> None:
    field = BucketField(name="age", boundaries=tuple(map(float, range(40))))
    assert {0, 1, 2, field.size - 2, field.size - 1} <= encoded_indices(Schema((field,)))


def test_first_and_last_categories_are_probed() -> None:
    field = CategoricalField(name="item", vocabulary=Vocabulary.of(map(str, range(50))))
    values = probing_values(field)
    assert values[:5] == ["0", "1", "2", "3", "49"]
    assert None in values


def test_unknown_text_is_in_no_vocabulary() -> None:
    field = CategoricalField(name="item", vocabulary=Vocabulary.of(["golden-0", "golden-1"]))
    assert "golden-2" in probing_values(field)


def test_value_fields_are_probed_at_their_ends_and_beyond() -> None:
    values = probing_values(ValueField(name="mass", minimum=-1.0, maximum=3.0))
    assert {-1.0, 3.0, HUGE, -HUGE} <= set(values)


def test_lists_are_probed_empty_overlong_and_with_nulls() -> None:
    values = [value for value in probing_values(FIELDS[2]) if value is not None]  # type: ignore[arg-type]
    assert [] in values
    assert any(len(value) > 2 for value in values)
    assert any(None in value for value in values)


@pytest.mark.parametrize("policy", ["bucket", "zero", "reject"])
def test_requests_respect_the_policies(policy: Policy) -> None:
    """What a field rejects is not asked; whatever is asked encodes."""
    schema = Schema(
        (
            BucketField(name="age", boundaries=(1.0,), missing=policy),
            CategoricalField(
                name="city", vocabulary=Vocabulary.of("ab"), missing=policy, unknown=policy
            ),
            CategoricalField(
                name="tags", vocabulary=Vocabulary.of("ab"), multi=True, max_values=2,
                missing=policy, unknown=policy,
            ),
        )
    )  # fmt: skip
    assert encoded_indices(schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_requests_are_few_and_name_every_field(name: str) -> None:
    schema = SCHEMAS[name]
    requests = golden_requests(schema)
    assert 1 <= len(requests) <= MOST_REQUESTS
    for request in requests:
        assert set(request["context"]) == {field.name for field in schema.side("context")}
        assert len(request["candidates"]) == CANDIDATES
        for item in request["candidates"]:
            assert set(item["features"]) == {field.name for field in schema.side("candidate")}


def test_requests_are_strict_json() -> None:
    for schema in SCHEMAS.values():
        json.dumps(golden_requests(schema), allow_nan=False)


def test_same_schema_gives_the_same_requests() -> None:
    assert golden_requests(SCHEMAS["weighted"]) == golden_requests(SCHEMAS["weighted"])


def test_bundles_requests_are_composed_from_its_schema_alone(bundle: Bundle) -> None:
    """A row of the log may be personal data; the schema that the bundle carries is enough."""
    asked = [
        {key: request[key] for key in ("context", "candidates")}
        for request in bundle.golden["requests"]
    ]
    assert asked == golden_requests(bundle.schema)


def test_bundles_golden_scores_are_the_graphs(bundle: Bundle, scorer: Scorer) -> None:
    assert scorer.replay() <= bundle.golden["tolerance"] == 1e-5
    scores = np.concatenate([request["scores"] for request in bundle.golden["requests"]])
    assert np.ptp(scores) > 0

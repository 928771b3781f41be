from __future__ import annotations

from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from features.schema import CategoricalField, Schema
from features.vocabulary import Vocabulary
from service.body_schemas import body_schemas
from service.limits import Limits
from tests.service.linear import NO_CONTEXT, REJECTING, SCHEMA

LIMITS = Limits(rows=101, text=4, elements=4)
IDS = list(range(101))
FULL = {"price": 1, "kind": "a"}
LISTING = Schema(
    (
        CategoricalField(
            name="code", unknown="reject", vocabulary=Vocabulary.of(("7", "0.5", "true", "07", "x"))
        ),
    )
)


def is_valid(schema: Schema, name: str, body: Any) -> bool:
    components = {"schemas": body_schemas(schema, LIMITS)}
    reference = {"$ref": f"#/components/schemas/{name}", "components": components}
    return Draft202012Validator(reference).is_valid(body)


@pytest.mark.parametrize(
    ("body", "beyond"),
    [
        ({"instances": [{}] * 101}, {"instances": [{}] * 102}),
        ({"columns": {"age": IDS}}, {"columns": {"age": [*IDS, 1]}}),
        ({"instances": [{"city": "abcd"}]}, {"instances": [{"city": "abcde"}]}),
        ({"instances": [{"city": 2**53}]}, {"instances": [{"city": 2**53 + 2}]}),
        ({"instances": [{"age": 1e300}]}, {"instances": [{"age": "1"}]}),
        ({"instances": [{"tags": [None] * 4}]}, {"instances": [{"tags": [None] * 5}]}),
        ({"columns": {"age": [1], "new": 0}}, {"columns": {"new": [1]}}),
        ({"instances": []}, {"instances": [], "columns": {"age": []}}),
    ],
)
def test_a_score_body_is_bounded_as_the_settings_say(body: Any, beyond: Any) -> None:
    assert is_valid(SCHEMA, "ScoreRequest", body)
    assert not is_valid(SCHEMA, "ScoreRequest", beyond)


@pytest.mark.parametrize(
    ("body", "beyond"),
    [
        ({"candidates": {"id": IDS}}, {"candidates": {"id": [*IDS, 1]}}),
        ({"candidates": [{"id": "abcd"}]}, {"candidates": [{"id": "abcde"}]}),
        ({"candidates": [], "top_k": 1}, {"candidates": [], "top_k": 0}),
        ({"candidates": [], "context": {"age": 1}}, {"candidates": [], "context": {"price": 1}}),
        (
            {"candidates": {"id": [], "features": {"price": []}}},
            {"candidates": {"id": [], "features": {"age": []}}},
        ),
        (
            {"candidates": {"id": IDS[:100]}, "pairwise": True},
            {"candidates": {"id": IDS}, "pairwise": True},
        ),
        (
            {"candidates": {"id": IDS}, "pairwise": True, "top_k": 100},
            {"candidates": {"id": IDS}, "pairwise": True, "top_k": 101},
        ),
        (
            {"candidates": [{"id": 1}] * 101, "pairwise": False},
            {"candidates": [{"id": 1}] * 101, "pairwise": True},
        ),
    ],
)
def test_a_rank_body_is_bounded_as_the_settings_say(body: Any, beyond: Any) -> None:
    assert is_valid(SCHEMA, "RankRequest", body)
    assert not is_valid(SCHEMA, "RankRequest", beyond)


@pytest.mark.parametrize(
    ("body", "without"),
    [
        ({"instances": [FULL | {"age": 1}]}, {"instances": [FULL]}),
        ({"instances": [FULL | {"age": 1}]}, {"instances": [FULL | {"age": None}]}),
        ({"columns": {"tags": []}}, {"columns": {"tags": [None]}}),
    ],
)
def test_a_score_body_must_hold_what_must_not_be_missing(body: Any, without: Any) -> None:
    assert is_valid(REJECTING, "ScoreRequest", body)
    assert not is_valid(REJECTING, "ScoreRequest", without)


@pytest.mark.parametrize(
    ("candidates", "without"),
    [
        ([{"id": 1, "features": FULL}], [{"id": 1}]),
        ([{"id": 1, "features": FULL}], [{"id": 1, "features": {"price": 1}}]),
        ({"id": []}, {"id": [1]}),
        ({"id": [], "features": {}}, {"id": [1], "features": {"price": [1]}}),
    ],
)
def test_a_rank_body_must_hold_what_must_not_be_missing(candidates: Any, without: Any) -> None:
    whole = {"context": {"age": 1}, "candidates": candidates}
    assert is_valid(REJECTING, "RankRequest", whole)
    assert not is_valid(REJECTING, "RankRequest", whole | {"candidates": without})
    assert not is_valid(REJECTING, "RankRequest", whole | {"context": None})
    assert not is_valid(REJECTING, "RankRequest", {"candidates": candidates})


def test_a_list_that_must_not_be_missing_holds_a_category() -> None:
    tags = CategoricalField(name="tags", multi=True, max_values=2, missing="reject", hash_buckets=3)
    for value, is_taken in (([None, "a"], True), ([None], False), ([], False), (None, False)):
        assert is_valid(Schema((tags,)), "Instance", {"tags": value}) == is_taken


@pytest.mark.parametrize("code", ["7", 7, 7.0, "0.5", 0.5, "true", True, "07", "x", None])
def test_a_category_of_a_short_list_is_taken_in_all_its_forms(code: Any) -> None:
    assert is_valid(LISTING, "Instance", {"code": code})


@pytest.mark.parametrize("code", ["y", 1, "7.0", False])
def test_a_category_beside_a_short_list_is_not_taken(code: Any) -> None:
    assert not is_valid(LISTING, "Instance", {"code": code})


def test_without_context_fields_any_context_is_ignored() -> None:
    body = {"context": {"price_of": 1}, "candidates": []}
    assert is_valid(NO_CONTEXT, "RankRequest", body)

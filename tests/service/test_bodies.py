"""The fast way of decoding and the slow one agree on every body."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encode import Encoder
from features.errors import FeatureError
from features.schema import SIDES
from service.bodies import BodyDecoder, rank_decoder, score_decoder
from service.documents import decode_json
from service.errors import RequestError
from service.limits import Limits
from service.messages import MOST_LEARNED
from service.problems import ProblemFinder
from tests.service.linear import REJECTING, SCHEMA

TABLE = SCHEMA.build_table()
ENCODERS = {side: Encoder(SCHEMA, side, TABLE) for side in SIDES}
LIMITS = Limits(rows=100, text=12, elements=3)
FINDER = ProblemFinder(ENCODERS, LIMITS)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53, 2**53 + 1, -(2**60), 10**400])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["Lyon", "red", "7", "true", "\u00e9" * 12, "x" * 13])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=4) | st.dictionaries(st.text(max_size=3), SCALARS)
NAMES = st.sampled_from([field.name for field in SCHEMA.fields] + ["new", "", "id"])
ROWS = st.dictionaries(NAMES, VALUES, max_size=4) | VALUES
SCORE_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "instances": st.lists(ROWS, max_size=4) | VALUES,
        "columns": st.dictionaries(NAMES, st.lists(SCALARS, max_size=3) | VALUES, max_size=3),
        "other": SCALARS,
    },
)
CANDIDATES = st.fixed_dictionaries({}, optional={"id": SCALARS, "features": ROWS, "other": SCALARS})
RANK_BODIES = st.fixed_dictionaries(
    {"candidates": st.lists(CANDIDATES | VALUES, max_size=3) | VALUES},
    optional={
        "context": ROWS,
        "top_k": SCALARS,
        "pairwise": SCALARS,
        "partial": SCALARS,
        "other": SCALARS,
    },
)


def outcome(decoder: BodyDecoder[Any], body: bytes) -> tuple[bool, Any]:
    """Whether a body is taken all the way to indices, as a server with this decoder would."""
    try:
        request = decoder.decode(body)
        for side, values in sides(request):
            columns, _ = ENCODERS[side].columns_from_values(values)
            ENCODERS[side].encode(columns, request.rows if side == "candidate" else len_of(request))
    except RequestError:
        return False, None
    except FeatureError:
        assert decoder.explain(body).problems
        return False, None
    return True, request


def sides(request: Any) -> list[tuple[Any, Any]]:
    if hasattr(request, "values"):
        return [("context", request.values), ("candidate", request.values)]
    return [("context", request.context), ("candidate", request.candidates)]


def len_of(request: Any) -> int:
    return request.rows if hasattr(request, "values") else 1


def is_faultless(find: Any, body: bytes) -> bool:
    try:
        return not find(decode_json(body))
    except RequestError:
        return False


@settings(max_examples=400, deadline=None)
@given(SCORE_BODIES | VALUES)
def test_score_bodies_are_taken_exactly_when_no_problem_is_found(body: Any) -> None:
    text = json.dumps(body).encode()
    taken, _ = outcome(score_decoder(SCHEMA, FINDER), text)
    assert taken == is_faultless(FINDER.score_problems, text)


@settings(max_examples=400, deadline=None)
@given(RANK_BODIES | VALUES)
def test_rank_bodies_are_taken_exactly_when_no_problem_is_found(body: Any) -> None:
    text = json.dumps(body).encode()
    taken, _ = outcome(rank_decoder(SCHEMA, FINDER), text)
    assert taken == is_faultless(FINDER.rank_problems, text)


@given(st.lists(st.dictionaries(NAMES.filter(lambda n: n != "id"), st.none()), max_size=4))
def test_a_learned_name_is_counted_as_on_its_first_day(rows: list[dict[str, Any]]) -> None:
    decoder = score_decoder(SCHEMA, FINDER)
    body = json.dumps({"instances": rows}).encode()
    first, second = decoder.decode(body), decoder.decode(body)
    assert first.unknown == second.unknown
    assert {k: list(v) for k, v in first.values.items()} == {
        k: list(v) for k, v in second.values.items()
    }


def test_only_so_many_names_are_learned() -> None:
    decoder = score_decoder(SCHEMA, FINDER)
    for start in range(0, 200, 10):
        body = {"instances": [{f"n{n}": 1 for n in range(start, start + 10)}]}
        assert len(decoder.decode(json.dumps(body).encode()).unknown) == 10
    assert len(decoder._learned) == MOST_LEARNED


@pytest.mark.parametrize(
    ("row", "pointer", "code"),
    [
        ({"price": 1, "kind": "a"}, "/instances/0/age", "missing_value"),
        ({"age": 1, "price": 1}, "/instances/0/kind", "missing_value"),
        ({"age": 1, "price": 1, "kind": "z"}, "/instances/0/kind", "unknown_category"),
        (
            {"age": 1, "price": 1, "kind": "a", "tags": ["x", "z"]},
            "/instances/0/tags/1",
            "unknown_category",
        ),
    ],
)
def test_what_a_field_rejects_is_explained(row: Any, pointer: str, code: str) -> None:
    table = REJECTING.build_table()
    encoders = {side: Encoder(REJECTING, side, table) for side in SIDES}
    decoder = score_decoder(REJECTING, ProblemFinder(encoders, LIMITS))
    error = decoder.explain(json.dumps({"instances": [row]}).encode())
    assert (error.problems[0].pointer, error.problems[0].code) == (pointer, code)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_json_are_a_400(body: bytes) -> None:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        with pytest.raises(RequestError) as caught:
            score_decoder(SCHEMA, FINDER).decode(body)
        assert caught.value.status == 400

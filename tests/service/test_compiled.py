"""The compiled pass and the Python way read every body alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.cross import CrossField
from features.crosser import Crosser
from features.encode import Encoder
from features.schema import SIDES, BucketField, CategoricalField, Schema, ValueField
from features.vocabulary import Vocabulary
from service.bodies import BodyDecoder, rank_decoder, score_decoder
from service.compiled import PlainReader
from service.limits import Limits
from service.messages import RankRequest, ScoreRequest
from service.prepared import Prepared
from service.problems import ProblemFinder
from service.routes import RankRoute, ScoreRoute
from service.settings import Settings
from tests.service.alike import answered_alike

_bodies = pytest.importorskip("service._bodies", reason="the compiled module was not built")

WORDS = (
    "",
    "a",
    "red",
    "Lyon",
    "\u00e9t\u00e9",
    "7",
    "-3",
    "true",
    "x" * 100,
    "y" * 128,
    "z" * 129,
    "\u00e9" * 71,
    "w" * 141,
)
SCHEMA = Schema(
    (
        BucketField(name="hour", side="context", boundaries=(6.0, 12.5, 18.0)),
        CategoricalField(name="city", side="context", vocabulary=Vocabulary.of(WORDS)),
        ValueField(name="age", side="context", minimum=-5.0, maximum=90.5, missing="zero"),
        BucketField(name="price", boundaries=(-1e300, -0.1, 0.0, 0.1, 1 / 3, 1e22), missing="zero"),
        CategoricalField(name="item", vocabulary=Vocabulary.of(WORDS), unknown="zero"),
        CategoricalField(name="shop", hash_buckets=7, missing="zero"),
        CategoricalField(name="brand", vocabulary=Vocabulary.of(WORDS), unknown="reject"),
        ValueField(name="must", minimum=0.0, maximum=3.0, transform="standard", mean=1.1,
                   deviation=0.7, missing="reject"),
        CategoricalField(name="tags", vocabulary=Vocabulary.of(WORDS), multi=True, max_values=3),
        CategoricalField(name="marks", vocabulary=Vocabulary.of(WORDS), multi=True, max_values=2,
                         pooling="sum", unknown="zero", missing="zero"),
        CategoricalField(name="\u00fc", vocabulary=Vocabulary.of(WORDS), embedding=False),
    ),
    crosses=(
        CrossField(name="hour_city", side="context", of=("hour", "city"), hash_buckets=99,
                   embedding=True),
        CrossField(name="new", side="candidate", of=("shop", "hour", "item"), hash_buckets=9999),
        CrossField(name="price_item", side="candidate", of=("price", "item"), hash_buckets=1 << 20,
                   embedding=True),
    ),
)  # fmt: skip
PLAIN = Schema(
    (
        BucketField(name="hour", side="context", boundaries=(6.0,)),
        CategoricalField(name="item", vocabulary=Vocabulary.of(WORDS)),
    )
)
CANDIDATE_ONLY = Schema((CategoricalField(name="item", vocabulary=Vocabulary.of(WORDS)),))
MOST_ROWS = 50
LIMITS = Limits(rows=MOST_ROWS, text=140, elements=5)

CATEGORIES = (
    st.sampled_from(WORDS)
    | st.none()
    | st.booleans()
    | st.integers(-(10**16), 10**16)
    | st.sampled_from([1.0, 2.5, -0.0, 7, -3, 2**53, 10**30])
    | st.text(max_size=4)
)
NUMBERS = (
    st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**25), 10**25)
    | st.sampled_from([0.1, 1 / 3, 1e22, 1e23, 6.0, 12.5, 5e-324, 1.7976931348623157e308])
    | st.integers(-5, 5).map(float)
)
VALUES = {
    "hour": NUMBERS, "city": CATEGORIES, "age": NUMBERS, "price": NUMBERS, "item": CATEGORIES,
    "shop": CATEGORIES, "brand": CATEGORIES, "must": NUMBERS, "\u00fc": CATEGORIES,
    "tags": st.none() | st.lists(CATEGORIES, max_size=6),
    "marks": st.none() | st.lists(CATEGORIES, max_size=4),
}  # fmt: skip
UNKNOWN = {"new": st.none() | st.lists(st.dictionaries(st.text(max_size=2), NUMBERS), max_size=2)}


def row(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    known = {name: VALUES[name] for name in names}
    must = {"must": st.floats(-1, 4)} if "must" in names else {}
    optional = {name: value for name, value in known.items() if name != "must"}
    return st.fixed_dictionaries(must, optional=optional | UNKNOWN)


CONTEXT_NAMES = [field.name for field in SCHEMA.side("context")]
CANDIDATE_NAMES = [field.name for field in SCHEMA.side("candidate")]
SCORE_BODIES = st.fixed_dictionaries(
    {"instances": st.lists(row(CONTEXT_NAMES + CANDIDATE_NAMES), min_size=1, max_size=6)}
)
CANDIDATES = st.fixed_dictionaries(
    {"id": st.text(max_size=3) | st.integers(), "features": row(CANDIDATE_NAMES)}
)
RANK_BODIES = st.fixed_dictionaries(
    {"candidates": st.lists(CANDIDATES, min_size=1, max_size=6)},
    optional={
        "context": row(CONTEXT_NAMES),
        "top_k": st.integers(1, 9),
        "pairwise": st.booleans(),
        "partial": st.booleans(),
    },
)
EDITS = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.sampled_from([*'{}[]",:\\ \n\t0123456789.-+eEtfnul', "\u00e9", "\x00", "null"]),
        st.integers(0, 3),
    ),
    max_size=3,
)


@dataclass
class StubModel:
    """What the routes read of a model."""

    score_decoder: BodyDecoder[ScoreRequest]
    rank_decoder: BodyDecoder[RankRequest]
    scorer: Any


class Ways:
    """Both ways of reading the bodies of one schema."""

    def __init__(self, schema: Schema) -> None:
        table = schema.build_table()
        self.encoders = {side: Encoder(schema, side, table) for side in SIDES}
        self.crosser = Crosser(schema)
        finder = ProblemFinder(self.encoders, LIMITS)
        self.model: Any = StubModel(
            score_decoder(schema, finder), rank_decoder(schema, finder), self
        )
        limits, none = Settings(bundle=Path("none"), max_rows=MOST_ROWS), cast(Any, None)
        self.routes = [route(none, limits, none) for route in (ScoreRoute, RankRoute)]
        reader = PlainReader.of(schema, table, LIMITS)
        assert reader is not None
        self.reader = reader

    def fast(self, body: bytes) -> Prepared | None:
        read = self.reader.rank if b'"candidates"' in body else self.reader.score
        return read(body)


FULL, SMALL, BARE = Ways(SCHEMA), Ways(PLAIN), Ways(CANDIDATE_ONLY)


def bytes_of(body: Any, is_ascii: bool = False) -> bytes:
    return json.dumps(body, ensure_ascii=is_ascii).encode()


@settings(max_examples=300, deadline=None)
@given(SCORE_BODIES | RANK_BODIES, st.booleans(), EDITS)
@example({"instances": [{"must": 1, "item": "y" * 128}]}, False, [])
@example({"instances": [{"must": 1, "marks": ["a", "b", None, "red"]}]}, False, [])
@example({"candidates": [{"id": 1, "features": {"must": 1}}] * 3, "context": {}}, True, [])
def test_what_is_taken_is_taken_alike(body: Any, is_ascii: bool, edits: list[Any]) -> None:
    """Also after a few bytes of the body were changed."""
    text = bytes_of(body, is_ascii).decode()
    for place, inserted, removed in edits:
        at = place % (len(text) + 1)
        text = text[:at] + inserted + text[at + removed :]
    for ways in (FULL, SMALL, BARE):
        answered_alike(ways, text.encode())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional={
    "hour": st.none() | st.floats(-1e6, 1e6) | st.integers(-99, 99),
    "item": st.sampled_from(WORDS[:-3]) | st.none() | st.booleans() | st.integers(-99, 99),
    "new": st.integers(0, 5),
}), min_size=1, max_size=9))  # fmt: skip
def test_plain_bodies_are_taken(rows: list[dict[str, Any]]) -> None:
    assert answered_alike(SMALL, bytes_of({"instances": rows}))
    candidates = [{"id": n, "features": {k: v for k, v in one.items() if k != "hour"}}
                  for n, one in enumerate(rows)]  # fmt: skip
    assert answered_alike(SMALL, bytes_of({"candidates": candidates, "context": {"hour": 3}}))
    assert answered_alike(SMALL, bytes_of({"candidates": candidates}))


NOT_PLAIN = [
    b"", b"{", b"[]", b"null", b"{}", b'{"instances":[]}', b'{"instances":[{}]}x',
    b'{"instances":[{}],"columns":{}}', b'{"instances":[{"hour":1,"hour":2}]}',
    b'{"instances":[{"new":1,"new":2}]}', b'{"instances":[{"item":"\\u0061"}]}',
    b'{"instances":[{"item":1.0}]}', b'{"instances":[{"item":-0}]}', b'{"instances":[{"item":01}]}',
    b'{"instances":[{"hour":1e999}]}', b'{"instances":[{"hour":"1"}]}',
    b'{"instances":[{"hour":true}]}', b'{"instances":[{"hour":1.}]}', b'{"instances":[{"hour":-}]}',
    b'{"instances":[{"item":"\xff"}]}', b'{"instances":[{"item":"\xed\xa0\x80"}]}',
    b'{"instances":[{"item":["a"]}]}', b'{"instances":[{"item":"a\nb"}]}', b'{"instances":[{},]}',
    b'{"instances":[{"new":' + b"[" * 40 + b"]" * 40 + b"}]}", b'{"instances":[{}\x00]}',
    b'{"instances":[' + b"{}," * MOST_ROWS + b"{}]}",
    b'{"instances":[{' + b",".join(b'"n%d":1' % n for n in range(65)) + b"}]}",
    b'{"candidates":[]}', b'{"candidates":[{"id":"a"}]}', b'{"candidates":[{"features":{}}]}',
    b'{"candidates":[{"id":true,"features":{}}]}', b'{"candidates":[{"id":1.5,"features":{}}]}',
    b'{"candidates":[{"id":1,"features":{"hour":1}}]}',
    b'{"candidates":[{"id":1,"features":{}}],"context":{"item":"a"}}',
    b'{"candidates":[{"id":1,"features":{}}],"top_k":0}',
    b'{"candidates":[{"id":1,"features":{}}],"top_k":1.0}',
    b'{"candidates":[{"id":1,"features":{}}],"pairwise":1}',
    b'{"candidates":[{"id":1,"features":{}}],"partial":null}',
    b'{"candidates":[{"id":1,"features":{}}],"partial":true,"partial":true}',
    b'{"candidates":[{"id":1,"features":{}}],"other":1}',
    b'{"candidates":[{"id":1,"features":{}}],"candidates":[{"id":1,"features":{}}]}',
    b'{"candidates":{"id":[1],"features":{}}}',
]  # fmt: skip


# Zeros behind the point weigh as much as an exponent, however many they are.
@pytest.mark.parametrize("zeros", [1, 60, 70, 1000, 2000])
@pytest.mark.parametrize("exponent", [0, 22, 70, 1010, 2010])
def test_long_fractions_are_read_alike(zeros: int, exponent: int) -> None:
    number = f"0.{'0' * zeros}1e{exponent}"
    answered_alike(SMALL, b'{"instances":[{"hour":%s}]}' % number.encode())


@pytest.mark.parametrize("body", NOT_PLAIN)
def test_the_rest_is_left_to_the_python_way(body: bytes) -> None:
    assert SMALL.fast(body) is None


def test_truncated_bodies_are_never_taken() -> None:
    body = bytes_of({"instances": [{"hour": 1.5, "item": "Lyon", "new": {"a": [1, "b", None]}}]})
    assert SMALL.fast(body) is not None
    for length in range(len(body)):
        assert SMALL.fast(body[:length]) is None


def test_the_hash_is_xxh3() -> None:
    text = bytes(range(256))
    for length in range(129):
        for seed in (0, 1, 2**63 + 12345):
            expected = xxhash.xxh3_64_intdigest(text[:length], seed)
            assert _bodies.hash_text(text[:length], seed) == expected


def test_numpy_keeps_what_only_it_can_do() -> None:
    schema = Schema((ValueField(name="x", transform="log1p", minimum=0.0, maximum=9.0),))
    assert PlainReader.of(schema, schema.build_table(), LIMITS) is None


@pytest.mark.parametrize("count", range(1, 10))
def test_a_number_is_found_among_any_count_of_boundaries(count: int) -> None:
    """On every boundary and on both sides of it."""
    edges = np.linspace(-1, 1, count)
    field = BucketField(name="price", boundaries=tuple(edges.tolist()))
    ways = Ways(Schema((field,)))
    values = np.concatenate([edges, np.nextafter(edges, 2), np.nextafter(edges, -2)]).tolist()
    body = json.dumps({"instances": [{"price": value} for value in values]}).encode()
    assert answered_alike(ways, body)

from __future__ import annotations

from typing import Any

import pytest

from features.cross_spec import DEFAULT_HASH_BUCKETS, CrossSpec
from features.errors import ConfigError
from features.spec import Spec, spec_from_json


def spec_of(**cross: Any) -> Spec:
    fields: dict[str, Any] = {
        "user": {"type": "categorical", "side": "context"},
        "hour": {"type": "numeric", "side": "context"},
        "item": {"type": "categorical"},
        "pay": {"type": "numeric", "encoding": "value"},
        "tags": {"type": "categorical", "multi": True},
        "other": {"type": "cross", "of": ["user", "item"]},
        "crossed": {"type": "cross", "of": ["user", "item"]} | cross,
    }
    return spec_from_json({"name": "m", "data": {"train": "t.csv", "label": "y"}, "fields": fields})


def test_a_cross_is_linear_and_has_a_million_buckets_unless_it_says_otherwise() -> None:
    cross = CrossSpec(name="crossed", of=("user", "item"))
    assert spec_of().crosses[1] == cross
    assert (cross.hash_buckets, cross.embedding) == (DEFAULT_HASH_BUCKETS, False)


def test_crosses_are_no_fields_of_a_row() -> None:
    spec = spec_of(of=["user", "hour", "item"], hash_buckets=7, embedding=True)
    assert [field.name for field in spec.fields] == ["user", "hour", "item", "pay", "tags"]
    assert [cross.name for cross in spec.crosses] == ["other", "crossed"]


NO_PART = (
    "cannot be crossed; a part must be a single-valued categorical or a bucketed numeric field"
)


@pytest.mark.parametrize(
    ("cross", "message"),
    [
        ({"of": ["usr", "item"]}, "fields.crossed.of: 'usr' is no field; the nearest one that can "
                                  "be crossed is 'user'"),
        ({"of": ["pay", "item"]}, f"fields.crossed.of: 'pay' {NO_PART}"),
        ({"of": ["user", "tags"]}, f"fields.crossed.of: 'tags' {NO_PART}"),
        ({"of": ["user", "other"]}, f"fields.crossed.of: 'other' {NO_PART}"),
        ({"of": ["user", "crossed"]}, f"fields.crossed.of: 'crossed' {NO_PART}"),
        ({"of": ["item", "item"]}, "fields.crossed: of names 'item' twice"),
        ({"of": ["item"]}, "fields.crossed: of must name two or three fields"),
        ({"of": ["user", "hour", "item", "item"]},
         "fields.crossed: of must name two or three fields"),
        ({"hash_buckets": 0}, "fields.crossed: hash_buckets must be at least 1"),
        ({"side": "context"},
         "unknown key 'fields.crossed.side'; the nearest valid one is 'name'"),
        ({"bucket": 3},
         "unknown key 'fields.crossed.bucket'; the nearest valid one is 'hash_buckets'"),
        ({"of": "user"}, "fields.crossed.of: Expected `array`, got `str`"),
    ],
)  # fmt: skip
def test_a_wrong_cross_is_refused_in_one_sentence(cross: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_of(**cross)
    assert caught.value.message == message


def test_the_parts_are_required() -> None:
    fields = {"item": {"type": "categorical"}, "x": {"type": "cross"}}
    with pytest.raises(ConfigError, match=r"fields\.x: there is no key `of`"):
        spec_from_json({"name": "m", "data": {"train": "t", "label": "y"}, "fields": fields})

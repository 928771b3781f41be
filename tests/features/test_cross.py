from __future__ import annotations

from typing import Any

import pytest

from features.cross import CrossField
from features.errors import SchemaError


@pytest.mark.parametrize(
    "wrong", [{"of": ("a",)}, {"of": tuple("abcd")}, {"of": ("a", "b", "a")}, {"hash_buckets": 0}]
)
def test_a_contradictory_cross_is_refused(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"of": ("a", "b"), "hash_buckets": 5} | wrong
    with pytest.raises(SchemaError, match="cross 'x': "):
        CrossField(name="x", side="candidate", **given)


def test_a_cross_owns_its_buckets_and_nothing_reserved() -> None:
    cross = CrossField(name="x", side="candidate", of=("a", "b"), hash_buckets=5)
    assert (cross.size, cross.slots, cross.is_weighted) == (5, 1, False)

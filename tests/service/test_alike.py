"""Bodies whose bytes were changed at random: both ways of reading them give the same answer."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import SEEDS, mutated

pytest.importorskip("service._bodies", reason="the compiled module was not built")

from tests.service.alike import answered_alike
from tests.service.test_compiled import BARE, FULL, SMALL


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeds_are_read(seed: bytes) -> None:
    answered_alike(FULL, seed)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_a_changed_body_is_read_alike_or_refused_with_a_problem(seed: bytes, number: int) -> None:
    """Never another error than a RequestError, and the same one when it is sent again."""
    body = mutated(seed, Random(number))
    for ways in (FULL, SMALL, BARE):
        answered_alike(ways, body)


@pytest.mark.parametrize("name", ['a\\"b', "a\\\\b", "a\\u0000b", "\\n", "", "\\u00e9", "\\u007f"])
def test_an_unknown_name_may_be_any_text(name: str) -> None:
    """msgspec builds no struct with some of these names, so they cannot be learned."""
    for body in (
        '{"instances":[{"must":1,"%s":1}]}',
        '{"columns":{"must":[1],"%s":[1]}}',
        '{"candidates":[{"id":1,"features":{"must":1,"%s":1}}]}',
    ):
        answered_alike(FULL, (body % name).encode())
        route = FULL.routes["candidates" in body]
        assert sum(route.read_any(FULL.model, (body % name).encode()).unknown.values()) == 1

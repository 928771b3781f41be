"""A body's answer in both ways of reading it."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.encode import Encoded
from service.errors import LARGEST_BODY_BYTES, RequestError, answer_to
from service.prepared import Prepared


def answered_alike(ways: Any, body: bytes) -> bool:
    """Whether the compiled pass takes a body; both routes must read it as the Python way does.

    Args:
        ways: a schema's, of tests/service/test_compiled.py.
        body: any bytes.
    """
    is_plain = False
    routes = zip(ways.routes, (ways.reader.score, ways.reader.rank), strict=True)
    for route, read in routes:
        fast, slow = read(body), read_slowly(ways, route, body)
        if fast is not None:
            is_plain = True
            assert isinstance(slow, Prepared), "the compiled pass took a body that is refused"
            same_request(fast, slow)
        again = read_slowly(ways, route, body)  # now that its unknown names are learned
        if isinstance(slow, Prepared):
            assert isinstance(again, Prepared)
            same_request(slow, again)
        else:
            assert again == slow
    return is_plain


def read_slowly(ways: Any, route: Any, body: bytes) -> Prepared | tuple[int, bytes]:
    """What the Python way finds: a request, or status and problem document."""
    try:
        request: Prepared = route.read_any(ways.model, body)
    except RequestError as error:
        status, _, document = answer_to(error)
        assert len(document) <= LARGEST_BODY_BYTES
        return status, document
    return request


def same_request(left: Prepared, right: Prepared) -> None:
    same(left.context, right.context)
    same(left.candidate, right.candidate)
    assert dict(left.unknown) == dict(right.unknown)
    assert dict(left.truncated) == dict(right.truncated)
    assert list(left.ids) == list(right.ids)
    assert [type(one) for one in left.ids] == [type(one) for one in right.ids]
    asked = [(one.top_k, one.pairwise, one.partial) for one in (left, right)]
    assert asked[0] == asked[1]


def same(left: Encoded, right: Encoded) -> None:
    np.testing.assert_array_equal(left.index, right.index)
    assert (left.weight is None) == (right.weight is None)
    if left.weight is not None and right.weight is not None:
        assert left.weight.dtype == right.weight.dtype
        np.testing.assert_array_equal(left.weight, right.weight)

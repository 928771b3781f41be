"""Requests whose end two readers could see in different places: no such request is run."""

from __future__ import annotations

import pytest

from tests.service.talks import request, said, talk

FORMS = {
    "length-then-chunks": [b"content-length: 6", b"transfer-encoding: chunked"],
    "chunks-then-length": [b"transfer-encoding: chunked", b"content-length: 4"],
    "unknown-encoding": [b"transfer-encoding: xchunked"],
    "chunked-not-last": [b"transfer-encoding: chunked", b"transfer-encoding: identity"],
    "space-before-colon": [b"transfer-encoding : chunked"],
    "folded-encoding": [b"transfer-encoding:", b" chunked"],
    "folded-header": [b"content-length: 5", b"x: a", b" b"],
    "two-equal-lengths": [b"content-length: 5", b"content-length: 5"],
    "list-of-lengths": [b"content-length: 5, 5"],
    "signed-length": [b"content-length: +5"],
    "endless-length": [b"content-length: 99999999999999999999999"],
    "nul-in-value": [b"content-length: 5", b"x: a\0b"],
    "nul-in-name": [b"content-length: 5", b"x\0: ab"],
    "bare-return": [b"content-length: 5\rx: y"],
    "bare-newline": [b"content-length: 5\nx: y"],
}


@pytest.mark.parametrize("headers", FORMS.values(), ids=FORMS.keys())
def test_an_ambiguous_request_is_a_400_and_what_follows_is_not_run(headers: list[bytes]) -> None:
    head = b"\r\n".join([b"POST /a HTTP/1.1", b"host: x", *headers, b"", b""])
    found = talk(lambda: said(head + b"0\r\n\r\n" + request("/hidden")))
    assert [status for status, _ in found.answers] == [400]
    assert found.run == []
    assert found.is_over


def test_a_body_behind_an_upgrade_is_not_run_as_a_request() -> None:
    whole = request("/a", request("/hidden"), b"upgrade: h2c", b"connection: upgrade")
    begin = whole.index(b"\r\n\r\n") + 4
    found = talk(lambda: said(whole[:begin], whole[begin:]))
    assert [status for status, _ in found.answers] == [400]
    assert found.run == []


def test_an_upgrade_without_a_body_is_answered_as_if_not_asked_for() -> None:
    found = talk(lambda: said(request("/a", b"", b"upgrade: h2c", b"connection: upgrade")))
    assert found.answers == [(200, b"/a")]

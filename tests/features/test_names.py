from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from features.names import needs_escape


@given(st.text(st.characters(exclude_categories=())))
def test_a_name_is_plain_exactly_when_json_and_the_structs_of_requests_take_it(name: str) -> None:
    is_plain = json.dumps(name, ensure_ascii=False) == f'"{name}"' and is_utf8(name)
    assert needs_escape(name) != is_plain
    try:
        msgspec.defstruct("Row", [("f0", int)], rename={"f0": name})
    except (ValueError, UnicodeEncodeError):
        assert not is_plain
    else:
        assert is_plain


def is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

"""What can be done to the bytes of a body of a request, or of any text."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

# For the schema of tests/service/test_compiled.py: every kind of field, every form of body.
SEEDS = [
    b'{"instances":[{"hour":6.5,"city":"Lyon","age":-3,"price":1e-1,"item":7,"shop":"x","brand":'
    b'"red","must":1.5,"tags":["a",null,"red"],"marks":[true,-3],"\xc3\xbc":"\xc3\xa9t\xc3\xa9"}]}',
    b'{"instances":[{"must":1},{"must":0.25,"item":null,"new":{"a":[1,{"b":[]}]}},{"must":-0.0}]}',
    b'{"columns":{"must":[1,2.5],"item":["a",7],"tags":[["a"],null],"hour":[1e3,null]}}',
    b'{"context":{"hour":12.5,"city":"a","age":1},"candidates":[{"id":"a","features":{"must":1,'
    b'"item":"a"}},{"id":-7,"features":{"must":2,"tags":[]}}],"top_k":3,"pairwise":true,'
    b'"partial":false}',
    b'{"candidates":{"id":["a",1],"features":{"must":[1,2],"brand":["red",null]}},"context":null}',
    b'{"candidates":[{"features":{"must":3,"x":"y"},"id":999999999999999}]}',
]
_TOKENS = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"false", b"NaN", b"Infinity",
    b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"1e400", b"5e-324", b"-0", b"-0.0", b"00", b"01",
    b"9" * 15, b"9" * 16, b"9" * 20, b"9" * 400, b"9" * 5000, b"0." + b"3" * 70, b"1E+0005", b"1.",
    b".5", b"+1", b"0x1", b"\\", b'\\"', b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00",
    b"\\u00", b"\x00", b"\x1f", b"\x7f", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xff\xfe", b"\xf0\x9f\x98\x80", b"//", b"/**/", b"\n", b" ",
    b"[" * 31, b"[" * 33, b"[" * 2000, b'{"a":' * 33, b'{"a":' * 2000, b'"must":1,', b'"id":1,',
    b'"top_k":1,', b'"instances":[],', b'"columns":{},', b'"candidates":[],', b'"features":{},',
    b'"context":{},', b'"pairwise":true,', b"x" * 129, b"x" * 141, b"x" * 1200, b'"",' * 7,
]  # fmt: skip


def flip(text: bytes, random: Random) -> bytes:
    """Another value for one bit."""
    place = random.randrange(len(text))
    return text[:place] + bytes([text[place] ^ 1 << random.randrange(8)]) + text[place + 1 :]


def cut(text: bytes, random: Random) -> bytes:
    """The first part."""
    return text[: random.randrange(len(text))]


def drop(text: bytes, random: Random) -> bytes:
    """Without one to eight bytes."""
    place = random.randrange(len(text))
    return text[:place] + text[place + 1 + random.randrange(8) :]


def repeat(text: bytes, random: Random) -> bytes:
    """A part of it several times."""
    begin, end = sorted(random.randrange(len(text) + 1) for _ in range(2))
    return text[:end] + text[begin:end] * random.choice((1, 1, 2, 70)) + text[end:]


def _insert(body: bytes, random: Random) -> bytes:
    place = random.randrange(len(body) + 1)
    return body[:place] + random.choice(_TOKENS) + body[place + random.randrange(3) :]


def _replace_value(body: bytes, random: Random) -> bytes:
    """What stands between a colon or comma and the next mark becomes something else."""
    begins = [place + 1 for place, byte in enumerate(body) if byte in b":,["]
    begin = random.choice(begins or [0])
    ends = [place for place in range(begin, len(body)) if body[place] in b",]}"]
    return body[:begin] + random.choice(_TOKENS) + body[ends[0] if ends else begin :]


def _splice(body: bytes, random: Random) -> bytes:
    other = random.choice(SEEDS)
    return body[: random.randrange(len(body) + 1)] + other[random.randrange(len(other)) :]


def _recode(body: bytes, random: Random) -> bytes:
    return body.decode("latin-1").encode(random.choice(["utf-16", "utf-16-le", "utf-8-sig"]))


_MUTATIONS: list[Callable[[bytes, Random], bytes]] = [
    flip, cut, drop, repeat, _insert, _insert, _replace_value, _replace_value, _splice,
]  # fmt: skip
MOST_BYTES = 20_000


def mutated(body: bytes, random: Random) -> bytes:
    """A body after one to four changes of its bytes."""
    for _ in range(random.choice((1, 1, 2, 4))):
        if body:
            body = random.choice(_MUTATIONS)(body, random)
    if body and random.random() < 0.01:
        body = _recode(body, random)
    return body[:MOST_BYTES]

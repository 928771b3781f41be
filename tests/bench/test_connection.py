from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from bench.connection import Connection, Head, Job, read_head

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 4\r\n\r\n"


class Owner:
    def __init__(self) -> None:
        self.told: list[object] = []

    def free(self, connection: Connection) -> None:
        self.told.append("free")

    def answered(self, job: Job, status: int, body: memoryview) -> None:
        self.told.append((job.place, status, bytes(body)))

    def lost(self, connection: Connection) -> None:
        self.told.append("lost with its job" if connection.job else "lost")


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        self.client, self.server = socket.socketpair()
        self.client.setblocking(False)
        super().__init__({"socket": self.client})
        self.told: list[object] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def abort(self) -> None:
        self.told.append("abort")

    def close(self) -> None:
        self.told.append("close")


Asked = tuple[Owner, Transport, Connection]


@pytest.fixture
def asked() -> Iterator[Asked]:
    """A connection that has sent a request."""
    owner, transport = Owner(), Transport()
    connection = Connection(owner)
    connection.connection_made(transport)
    connection.send(Job(0.0, 0, 5, b"request"))
    owner.told.clear()
    yield owner, transport, connection
    transport.client.close()
    transport.server.close()


def test_a_head_says_status_bounds_and_whether_the_connection_stays() -> None:
    assert read_head(HEAD + b"body") == Head(200, len(HEAD), len(HEAD) + 4, True)
    assert read_head(
        b"HTTP/1.1 422 Unprocessable Entity\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    ) == Head(422, 75, 75, False)


def test_a_head_that_is_not_complete_is_none() -> None:
    assert all(read_head(HEAD[:end]) is None for end in range(len(HEAD)))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\n",
        b"an invalid request\r\n\r\n",
    ],
)
def test_what_is_no_answer_with_a_length_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"answer|invalid literal"):
        read_head(data)


def test_a_request_larger_than_the_socket_s_buffer_is_sent_whole(asked: Asked) -> None:
    _, transport, connection = asked
    request = bytes(range(256)) * 40_000
    connection.send(Job(0.0, 0, 5, request))
    (rest,) = transport.told
    assert isinstance(rest, bytes)
    transport.client.close()
    with transport.server.makefile("rb") as received:
        assert received.read() == b"request" + request[: -len(rest)]
    assert request.endswith(rest)


def test_a_server_that_hung_up_is_left_to_the_loop(asked: Asked) -> None:
    _, transport, connection = asked
    transport.server.close()
    connection.send(Job(0.0, 0, 6, b"request"))
    assert not transport.told
    assert connection.job is not None


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_is_whole_however_it_is_cut(size: int, asked: Asked) -> None:
    owner, _, connection = asked
    answer = HEAD + b"body"
    for start in range(0, len(answer), size):
        assert not owner.told
        connection.data_received(answer[start : start + size])
    assert owner.told == [(5, 200, b"body"), "free"]


def test_a_connection_that_the_server_closes_takes_no_more_requests(asked: Asked) -> None:
    owner, transport, connection = asked
    connection.data_received(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    assert owner.told == [(5, 200, b"")]
    assert transport.told[-1] == "close"


@pytest.mark.parametrize("data", [HEAD + b"body and more", b"no answer\r\n\r\n"])
def test_garbled_answers_are_no_answers(data: bytes, asked: Asked) -> None:
    owner, transport, connection = asked
    connection.data_received(data)
    assert transport.told[-1] == "abort"
    connection.connection_lost(None)
    assert owner.told == ["lost with its job"]

"""Versions over real HTTP, with two workers."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest

from features.schema import BucketField, Schema
from service.crew import Worker
from service.orders import Answer, Ask, Channel, Done, Load, Switch, ToWorker
from service.settings import Settings
from service.supervisor import ENDING, MOST_DEATHS, Supervisor
from tests.service.linear import SCHEMA, linear_logit, write_bundle
from tests.service.processes import get, listeners, needs_proc, served, wait_for, workers

OTHER = Schema(
    (
        *reversed(SCHEMA.fields),
        BucketField(name="new", side="context", boundaries=(0.0, 1.0)),
    )
)
CONTEXT = {"age": 25, "city": "Paris"}
ITEMS: list[dict[str, Any]] = [
    {"price": price, "mass": 1.5, "shop": f"shop{price}", "tags": ["red", 7]}
    for price in (0.5, 5, 50, 500)
]
BODY = json.dumps({"instances": [CONTEXT | item for item in ITEMS]})
CLIENTS, REQUESTS_PER_CONNECTION = 3, 20


def schema_of(version: int) -> Schema:
    return SCHEMA if version % 2 else OTHER


def expected_scores(version: int) -> list[float]:
    request = {"context": CONTEXT, "candidates": [{"features": item} for item in ITEMS]}
    scores: list[float] = (
        1 / (1 + np.exp(-linear_logit(schema_of(version), request, version)))
    ).tolist()
    return scores


def write_version(folder: Path, version: int, shift: float = 0.0) -> None:
    """As export does: complete before it has its name."""
    draft = folder.parent / "draft" / folder.name / str(version)
    write_bundle(draft, schema_of(version), shift, seed=version)
    draft.rename(folder / str(version))


def reload(address: str, version: int | None = None, path: str = "reload") -> tuple[int, Any]:
    body = json.dumps({"version": version}).encode()
    headers = {"authorization": "Bearer key"}
    request = urllib.request.Request(f"{address}/admin/{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


class Client(threading.Thread):
    """A client that asks without a pause and checks every answer, on a new connection at times."""

    def __init__(self, address: str, expected: dict[int, list[float]]) -> None:
        super().__init__()
        self.host = address.removeprefix("http://")
        self.expected = expected
        self.versions: Counter[int] = Counter()
        self.failed: list[str] = []
        self.wrong: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection(self.host, timeout=10)
            try:
                for _ in range(REQUESTS_PER_CONNECTION):
                    connection.request("POST", "/score", BODY)
                    answer = connection.getresponse()
                    self.check(answer.status, answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()

    def check(self, status: int, body: bytes) -> None:
        if status != 200:
            self.failed.append(f"{status} {body!r}")
            return
        document = json.loads(body)
        self.versions[document["version"]] += 1
        if not np.allclose(document["scores"], self.expected[document["version"]], atol=1e-5):
            self.wrong.append(f"{document}")


class Played(threading.Thread):
    """A worker in a thread, which loads nothing; it ends when it is told to switch, or to drop."""

    def __init__(self, refuses: bool = False, ends: bool = False) -> None:
        super().__init__(daemon=True)
        ours, theirs = multiprocessing.Pipe()
        self.worker = Worker(cast(Any, Mock()), ours)
        self.channel: Channel[ToWorker] = Channel(theirs, ToWorker)
        self.refuses, self.ends = refuses, ends
        self.heard: list[str] = []
        self.start()

    def run(self) -> None:
        while not {"Switch", "Drop"} & set(self.heard):
            order = self.channel.receive()
            self.heard.append(type(order).__name__)
            if self.ends:
                self.channel.connection.close()
                return
            if isinstance(order, Load | Switch):
                self.channel.send(Done(order.number, "bad" if self.refuses else ""))


class Theatre(Supervisor):
    """A supervisor of played workers; who ends is replaced by the next understudy."""

    def __init__(self, folder: Path, *played: Played, understudies: list[Played]) -> None:
        settings = Settings(bundle=folder, workers=len(played), provider="cpu")
        super().__init__(settings, None, lambda *_: None)
        self.versions.served(1)
        self.crew.workers = [one.worker for one in played]
        self.understudies = iter(understudies)

    def _start(self, version: int) -> Worker:
        return next(self.understudies).worker


def rolled_out(
    folder: Path, *played: Played, understudies: tuple[Played, ...] = ()
) -> tuple[Supervisor, Answer]:
    """What a supervisor of these workers answers to a wish for version 2."""
    supervisor = Theatre(folder, *played, understudies=list(understudies))
    return supervisor, supervisor.answer(Ask(7, 2))


def test_all_workers_switch_when_all_have_loaded(folder: Path) -> None:
    write_version(folder, 2)
    played = [Played() for _ in range(3)]
    supervisor, answer = rolled_out(folder, *played)
    assert answer == Answer(7, 2)
    assert supervisor.versions.current == 2
    for one in played:
        one.join(10)
        assert one.heard == ["Load", "Switch"]


def test_where_one_worker_fails_to_load_nobody_switches(folder: Path) -> None:
    write_version(folder, 2)
    good, bad = Played(), Played(refuses=True)
    supervisor, answer = rolled_out(folder, good, bad)
    assert answer.status == 409
    assert supervisor.versions.current == 1
    for one in (good, bad):
        one.join(10)
        assert one.heard == ["Load", "Drop"]


def test_a_wish_is_refused_where_the_server_ends_meanwhile(folder: Path) -> None:
    write_version(folder, 2)
    supervisor = Theatre(folder, Played(), understudies=[])
    supervisor._stopping.set()
    assert "the server is ending" in supervisor.answer(Ask(7, 2)).error
    assert supervisor.versions.current == 1


@pytest.mark.parametrize("place", [0, 1])
def test_a_worker_killed_while_it_loads_refuses_no_version(folder: Path, place: int) -> None:
    write_version(folder, 2)
    played = [Played(ends=place == 0), Played(ends=place == 1)]
    understudy = Played()
    supervisor, answer = rolled_out(folder, *played, understudies=(understudy,))
    assert answer == Answer(7, 2)
    assert supervisor.versions.standing.refused == 0
    for one, heard in ((played[1 - place], []), (understudy, ["Standing"])):
        one.join(10)
        assert one.heard == [*heard, "Load", "Switch"]


def test_a_version_that_goes_on_killing_workers_is_refused(folder: Path) -> None:
    write_version(folder, 2)
    deaths = [Played(ends=True) for _ in range(MOST_DEATHS)]
    good, last = Played(), Played()
    supervisor, answer = rolled_out(folder, deaths[0], good, understudies=(*deaths[1:], last))
    assert answer.status == 409
    assert f"{MOST_DEATHS} workers ended" in answer.error
    assert supervisor.versions.current == 1
    good.join(10)
    assert good.heard == ["Drop"]


def test_a_process_that_cannot_be_started_leaves_nothing_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Mock()
    context.Process().start.side_effect = OSError(11, "Resource temporarily unavailable")
    supervisor = Supervisor(Settings(bundle=folder, workers=2), context, lambda *_: None)
    pipe = multiprocessing.Pipe()
    monkeypatch.setattr(multiprocessing, "Pipe", lambda: pipe)
    with pytest.raises(OSError, match="unavailable"):
        supervisor._start(1)
    assert [end.closed for end in pipe] == [True, True]
    assert not set(ENDING) & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_first_worker_tries_a_version_alone(folder: Path) -> None:
    write_version(folder, 2)
    bad, good = Played(refuses=True), Played()
    rolled_out(folder, bad, good)
    good.join(10)
    assert good.heard == ["Drop"]


def test_an_answer_that_comes_too_late_is_taken_for_no_other() -> None:
    ours, theirs = multiprocessing.Pipe()
    worker = Worker(cast(Any, None), ours)
    worker.order(Load(6, 2))
    for number, expected in ((5, None), (6, Done(6))):
        Channel(theirs, ToWorker).send(Done(number))
        worker.receive()
        assert worker.done == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    write_version(tmp_path / "m", 1)
    (tmp_path / "keys").write_text("key\n")
    return tmp_path / "m"


@pytest.fixture
def server(folder: Path) -> Iterator[tuple[Any, str]]:
    keys = str(folder.parent / "keys")
    variables = {"DEEPFM_ADMIN_KEYS_FILE": keys, "DEEPFM_RELOAD_POLL_S": "0.2"}
    options = ("--workers", "2", "--provider", "cpu")
    with served(folder, *options, log=subprocess.DEVNULL, **variables) as (process, address):
        yield process, address


def versions_told(address: str) -> set[int]:
    """By many connections, so that every worker is among those that answer."""
    return {get(f"{address}/readyz")["version"] for _ in range(24)}


def switch_under_load(folder: Path, address: str, switches: int) -> list[Client]:
    versions = range(1, 6)
    for version in versions[1:]:
        write_version(folder, version)
    wait_for(lambda: versions_told(address) == {5})  # from here on polling has nothing to do
    expected = {version: expected_scores(version) for version in versions}
    clients = [Client(address, expected) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for number in range(1, switches + 1):
            wanted = 1 + number % len(versions)
            assert reload(address, wanted) == (200, {"model": "m", "version": wanted})
            assert versions_told(address) == {wanted}
    finally:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join()
    return clients


@pytest.mark.parametrize("switches", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_no_answer_fails_or_is_wrong_while_versions_switch(
    folder: Path, server: tuple[Any, str], switches: int
) -> None:
    clients = switch_under_load(folder, server[1], switches)
    assert [failure for client in clients for failure in client.failed] == []
    assert [wrong for client in clients for wrong in client.wrong] == []
    seen = sum((client.versions for client in clients), Counter[int]())
    assert set(seen) == {1, 2, 3, 4, 5}


def test_a_new_version_reaches_all_workers_and_a_bad_one_none(
    folder: Path, server: tuple[Any, str]
) -> None:
    address = server[1]
    write_version(folder, 2)
    wait_for(lambda: versions_told(address) == {2})
    write_version(folder, 3, shift=1e-3)
    wait_for(lambda: all("refused" in get(f"{address}/readyz") for _ in range(24)))
    status, answer = reload(address)
    assert status == 409
    assert "3: golden request 0 scores" in answer["detail"]
    assert versions_told(address) == {2}
    assert reload(address, 9)[0] == 404


@needs_proc
def test_a_worker_replaced_after_a_switch_begins_with_the_current_version(
    folder: Path, server: tuple[Any, str]
) -> None:
    process, address = server
    write_version(folder, 2)
    wait_for(lambda: versions_told(address) == {2})
    assert reload(address, 1)[0] == 200
    before = workers(process)
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(workers(process)) == 2 and workers(process) != before)
    wait_for(lambda: listeners(address) == 2)
    wait_for(lambda: _told_or_nothing(address) == {1})


@needs_proc
def test_a_canary_reaches_all_workers_those_that_are_replaced_too(
    folder: Path, server: tuple[Any, str]
) -> None:
    process, address = server
    write_version(folder, 3)
    wait_for(lambda: versions_told(address) == {3})
    assert reload(address, 2, "canary")[0] == 404
    assert reload(address, 1, "canary")[1]["canary"] == {"version": 1, "share": 0.05}
    assert canaries_told(address) == {1}
    write_version(folder, 2, shift=1e-3)
    assert reload(address, 2, "shadow")[0] == 409
    assert canaries_told(address) == {1}
    before = workers(process)
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(workers(process)) == 2 and workers(process) != before)
    wait_for(lambda: listeners(address) == 2)
    wait_for(lambda: canaries_told(address) == {1})
    assert reload(address, 1) == (200, {"model": "m", "version": 1})
    assert versions_told(address) == {1}
    assert canaries_told(address) == {0}


def canaries_told(address: str) -> set[int]:
    try:
        ready = [get(f"{address}/readyz") for _ in range(24)]
    except OSError:  # what waited in the killed worker's queue is reset
        return set()
    return {one.get("canary", {"version": 0})["version"] for one in ready}


def _told_or_nothing(address: str) -> set[int]:
    try:
        return versions_told(address)
    except OSError:  # what waited in the killed worker's queue is reset
        return set()

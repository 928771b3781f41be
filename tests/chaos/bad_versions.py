"""Faults of the versions on disk; each is injected under load and gives a row."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from features.bundle import MANIFEST_FILE, MODEL_DATA_FILE, MODEL_FILE
from tests.chaos.faults import Scene
from tests.chaos.questions import VERSIONS, write_version
from tests.chaos.row import Row
from tests.chaos.server import Server
from tests.service.processes import wait_for

_FIRST_BAD = 100


def switched(scene: Scene, server: Server) -> Row:
    """No answer fails, and each is that of the version that it names."""
    times, every_s = scene.times(20, 200), 0.5 if scene.is_short else 1.0
    row = Row("versions switched", f"{times} reloads, one each {every_s} s")
    with scene.load(server.address) as load:
        for turn in range(times):
            due = time.monotonic() + every_s
            version = VERSIONS[turn % len(VERSIONS)]
            server.switch(version)
            if {told["version"] for told in server.told()} != {version}:
                row.broken.append(f"not all workers had switched to {version}")
            time.sleep(max(0.0, due - time.monotonic()))
    row.add(load)
    return row


def _no_manifest(version: Path) -> None:
    (version / MANIFEST_FILE).unlink()


def _half_a_manifest(version: Path) -> None:
    _truncate(version / MANIFEST_FILE)


def _half_a_graph(version: Path) -> None:
    _truncate(version / MODEL_FILE)


def _half_the_weights(version: Path) -> None:
    _truncate(version / MODEL_DATA_FILE)


def _no_weights(version: Path) -> None:
    (version / MODEL_DATA_FILE).unlink()


def _one_bit(version: Path) -> None:
    weights = bytearray((version / MODEL_DATA_FILE).read_bytes())
    weights[len(weights) // 2] ^= 1
    (version / MODEL_DATA_FILE).write_bytes(weights)


def _nothing(version: Path) -> None:
    shutil.rmtree(version)
    version.mkdir()


def _truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


_DAMAGES: tuple[Callable[[Path], None], ...] = (
    _no_manifest,
    _half_a_manifest,
    _half_a_graph,
    _half_the_weights,
    _no_weights,
    _one_bit,
    _nothing,
)


def bad_bundles(scene: Scene, server: Server) -> Row:
    """Each is refused by polling and by a reload, and the good version goes on."""
    damages = _DAMAGES * scene.times(1, 5)
    row = Row("bad bundles", f"{len(damages)} half-written or corrupt")
    serving = VERSIONS[-1]
    server.switch(serving)
    with scene.load(server.address) as load:
        for number, damage in enumerate(damages, _FIRST_BAD):
            _drop_in(scene.folder, number, damage)
            wait_for(lambda number=number: _is_refused(server, number))
            if server.reload(number)[0] != 409:
                row.broken.append(f"{damage.__name__}: the reload was not refused")
            if {told["version"] for told in server.told()} != {serving}:
                row.broken.append(f"{damage.__name__}: another version answers")
            shutil.rmtree(scene.folder / str(number))
    row.add(load)
    return row


def _drop_in(folder: Path, number: int, damage: Callable[[Path], None]) -> None:
    """A version appears that was never whole."""
    draft = folder.parent / "bad"
    draft.mkdir(exist_ok=True)
    source = draft / folder.name
    source.mkdir(exist_ok=True)
    write_version(source, number)
    damage(source / str(number))
    (source / str(number)).rename(folder / str(number))


def _is_refused(server: Server, number: int) -> bool:
    return all(
        any(one["version"] == number for one in told.get("refused", ())) for told in server.told()
    )


def unused_files(scene: Scene, server: Server) -> Row:
    """Who serves one version needs no file of another."""
    times = scene.times(2, 10)
    row = Row("unused files destroyed", f"{times} x 4 versions truncated, then deleted")
    with scene.load(server.address) as load:
        for turn in range(times):
            serving = VERSIONS[turn % len(VERSIONS)]
            server.switch(serving)
            time.sleep(0.5)  # what began with the version before has ended, and freed it
            others = [scene.folder / str(one) for one in VERSIONS if one != serving]
            for version in others:
                for path in version.iterdir():
                    _truncate(path)
            time.sleep(0.3)
            for version in others:
                shutil.rmtree(version)
            time.sleep(0.3)
            for version in others:
                write_version(scene.folder, int(version.name))
    row.add(load)
    return row

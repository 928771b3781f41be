from __future__ import annotations

import asyncio
import gc
import multiprocessing
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from service import link
from service.errors import ServiceError
from service.link import Link
from service.model import Model
from service.models import Models
from service.orders import Answer, Ask, Channel, Done, Drop, Load, Switch, ToParent
from service.owner import loaded
from service.settings import Settings
from service.versions import Refusal, Standing
from tests.service.linear import write_bundle

Parent = Channel[ToParent]
Play = Callable[[Parent, Link, Models], Coroutine[Any, Any, None]]


def play(folder: Path, act: Play) -> None:
    """Start a worker's side on version 1, and act as its parent."""
    for version in (1, 2):
        write_bundle(folder / "m" / str(version), seed=version)
    write_bundle(folder / "m" / "3", shift=1e-3)
    ours, theirs = multiprocessing.Pipe()
    parent: Parent = Channel(ours, ToParent)

    async def run() -> None:
        found, models = Link(Settings(bundle=folder / "m", provider="cpu"), theirs), Models()
        assert found.load_first(1)
        assert parent.receive() == Done(0)
        await found.start(models)
        await act(parent, found, models)
        ours.close()

    asyncio.run(run())


async def said(parent: Parent) -> ToParent:
    return await asyncio.to_thread(parent.receive)


def version_of(models: Models) -> int:
    assert models.current is not None
    return models.current.version


def test_what_is_loaded_answers_only_after_the_switch(tmp_path: Path) -> None:
    async def act(parent: Parent, _: Link, models: Models) -> None:
        parent.send(Load(1, 2))
        assert await said(parent) == Done(1)
        assert version_of(models) == 1
        parent.send(Switch(2))
        assert await said(parent) == Done(2)
        assert version_of(models) == 2

    play(tmp_path, act)


def test_a_bad_version_is_told_and_not_switched_to(tmp_path: Path) -> None:
    async def act(parent: Parent, _: Link, models: Models) -> None:
        parent.send(Load(1, 3))
        done = await said(parent)
        assert isinstance(done, Done)
        assert "golden request" in done.error
        parent.send(Switch(2))
        assert await said(parent) == Done(2)
        assert version_of(models) == 1

    play(tmp_path, act)


def test_what_is_dropped_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Model]] = []
    load = loaded

    def remember(settings: Settings, version: int) -> Model | str:
        model = load(settings, version)
        assert isinstance(model, Model)
        held.append(weakref.ref(model))
        return model

    monkeypatch.setattr(link, "loaded", remember)

    async def act(parent: Parent, _: Link, models: Models) -> None:
        parent.send(Load(1, 2))
        assert await said(parent) == Done(1)
        parent.send(Drop())
        parent.send(Switch(2))
        assert await said(parent) == Done(2)
        assert version_of(models) == 1
        gc.collect()
        assert held[0]() is None

    play(tmp_path, act)


def test_a_wish_goes_to_the_parent_and_its_answer_back(tmp_path: Path) -> None:
    async def act(parent: Parent, found: Link, _: Models) -> None:
        wishes = [asyncio.create_task(found.reload(wanted)) for wanted in (2, None)]
        asked = [await said(parent), await said(parent)]
        assert asked == [Ask(0, 2), Ask(1, None)]
        parent.send(Answer(1, error="refused", status=409))
        parent.send(Answer(0, 2))
        assert await wishes[0] == 2
        with pytest.raises(ServiceError, match="refused") as refused:
            await wishes[1]
        assert refused.value.status == 409

    play(tmp_path, act)


def test_what_the_parent_tells_is_told_on(tmp_path: Path) -> None:
    async def act(parent: Parent, found: Link, _: Models) -> None:
        told = Standing((Refusal(3, "bad"),), 4, 5)
        parent.send(told)
        parent.send(Switch(1))
        await said(parent)
        assert found.standing == told

    play(tmp_path, act)

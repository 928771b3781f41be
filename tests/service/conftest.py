"""Clients of started apps, and a bundle on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from features.schema import Schema
from service.app import create_app
from service.settings import Settings
from tests.service.tiny import SCHEMA, Client, fake_scorer, write_bundle

Start = Callable[..., Client]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start an app with a fake scorer; options are those of `Settings`."""
    with ExitStack() as stack:

        def start_app(schema: Schema = SCHEMA, **options: object) -> Client:
            settings = Settings(bundle=Path("unused/tiny"), **options)  # type: ignore[arg-type]
            app = create_app(settings, fake_scorer(schema))
            runner = stack.enter_context(asyncio.Runner())
            lifespan = app.router.lifespan_context(app)
            runner.run(lifespan.__aenter__())
            stack.callback(lambda: runner.run(lifespan.__aexit__(None, None, None)))
            return Client(app, runner)

        yield start_app


@pytest.fixture
def client(start: Start) -> Client:
    """An app that serves the tiny model."""
    return start()


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT/NAME/VERSION of a whole bundle; read only."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny" / "1")

"""A line to the service, for whoever tests what is sent and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.scorer import Scorer
from service.settings import Settings
from tests.service.lines import Line

Act = Callable[[Line], Awaitable[None]]


@pytest.fixture
def on_a_line(scorer: Scorer, bundle_path: Path) -> Callable[..., Line]:
    """Lets a coroutine talk to the service, and returns the line when it is done."""

    def run(act: Act, **given: Any) -> Line:
        async def whole() -> Line:
            settings = Settings(bundle=bundle_path.parent, max_body_bytes=1 << 20, max_rows=200)
            service = create_app(settings, scorer)
            async with service.router.lifespan_context(service):
                line = Line(service, **given)
                await act(line)
                return line

        return asyncio.run(whole())

    return run

"""The versions that are loaded: the one that answers, and a second one beside it."""

from __future__ import annotations

import gc
import logging
import re
import threading

from service.errors import NotFound, NotReady
from service.incoming import version_of
from service.mappings import release, trim
from service.model import Model
from service.second import Second

# No longer than int() takes, and no digits but those of ASCII: it fails on some others, like `²`.
_NUMBER = re.compile("[0-9]{1,19}")
_log = logging.getLogger("deepfm")


class Models:
    """Loaded versions: the one that answers, none until the first is ready; maybe a second."""

    def __init__(self) -> None:
        self.loaded: dict[int, Model] = {}
        self.current: Model | None = None
        self.second: Second | None = None

    def switch(self, model: Model) -> None:
        """Let a version answer from now on; on the event loop.

        The one before is let go: requests that it has begun hold it until they are answered. A
        second version stays beside, unless it is the one that answers now.
        """
        before, self.current = self.current, model
        if self.second is not None and self.second.model.version == model.version:
            self.second.end()
            self.second = None
        self._list()
        if before is not None and before.version not in self.loaded:
            _let_go(before)
        _log.info("%s version %d answers, on %s", model.name, model.version, model.scorer.provider)

    def put_beside(self, second: Second | None) -> None:
        """Let a second version stand beside the one that answers, or none; on the event loop."""
        if self.second is not None and self.second is not second:
            self.second.end()
        before, self.second = self.second, second
        self._list()
        if before is not None and before.model.version not in self.loaded:
            _let_go(before.model)

    def told_beside(self) -> dict[str, object]:
        """As the routes tell of the second version; nothing without one."""
        return self.second.trial.told() if self.second else {}

    def pick(self, query: bytes) -> Model:
        """The model that answers a request.

        Args:
            query: the URL's query string; `version=N` picks a loaded version.

        Raises:
            NotReady: none is loaded.
            NotFound: not that one.
        """
        if self.current is None:
            raise NotReady("no model is being served yet")
        if not query:
            return self.current
        wanted = version_of(query)
        if wanted is None:
            return self.current
        model = self.loaded.get(int(wanted)) if _NUMBER.fullmatch(wanted) else None
        if model is None:
            loaded = ", ".join(map(str, sorted(self.loaded)))
            raise NotFound(f"this version is not loaded; loaded: {loaded}")
        return model

    def _list(self) -> None:
        found = [self.current, self.second.model if self.second else None]
        self.loaded = {model.version: model for model in found if model is not None}


def _let_go(model: Model) -> None:
    """Drop a version beside the event loop, which would stand still for as long as that takes."""
    threading.Thread(target=_release, args=([model],), name="release", daemon=True).start()


def _release(held: list[Model]) -> None:
    """Drop what is held, which nothing else holds unless a request still waits for it."""
    model = held.pop()
    release(model.scorer.bundle.path)  # first: then dropping it takes no time
    del model
    gc.collect()  # the structs of its messages are cycles, and the collector hardly ever comes
    trim()

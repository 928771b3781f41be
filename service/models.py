"""The versions of one model that are loaded: the one that answers, and a second one beside it."""

from __future__ import annotations

import gc
import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from features.bundle import open_bundle
from features.errors import BundleError, DeepFMError
from features.signature import TrustedKeys
from service.batcher import Batcher
from service.bodies import BodyDecoder, rank_decoder, score_decoder
from service.compiled import PlainReader
from service.errors import NotFound, NotReady
from service.limits import Limits
from service.mappings import release
from service.messages import RankRequest, ScoreRequest
from service.problems import ProblemFinder
from service.scorer import Scorer
from service.settings import Settings

if TYPE_CHECKING:
    from service.second import Second

# No longer than int() takes, and no digits but those of ASCII: it fails on some others, like `²`.
_NUMBER = re.compile("[0-9]{1,19}")
_log = logging.getLogger("deepfm")


@dataclass(frozen=True)
class Model:
    """One loaded version: its scorer and queue, and readers made from the same schema."""

    name: str
    version: int
    scorer: Scorer
    batcher: Batcher
    score_decoder: BodyDecoder[ScoreRequest]
    rank_decoder: BodyDecoder[RankRequest]
    reader: PlainReader | None


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
    threading.Thread(target=_release, args=(model,), name="release", daemon=True).start()


def _release(model: Model) -> None:
    release(model.scorer.bundle.path)


def load_model(settings: Settings, version: int) -> Model:
    """A version, proved by its golden requests and warm; may be called beside the event loop.

    Raises:
        BundleError: there is no such version, or it fails a check, or in a way nobody foresaw.
        ConfigError: the execution provider cannot be had, or the trusted keys cannot be read.
    """
    path = settings.bundle / str(version)
    try:
        return _load(settings, path)
    except DeepFMError:
        raise
    except Exception as error:  # whatever is wrong with a version harms no other
        _log.exception("%s cannot be loaded", path)
        kind = type(error).__name__
        text = f"{path}: loading it failed with {kind}; the failure has been logged"
        raise BundleError(text) from error


def _load(settings: Settings, path: Path) -> Model:
    # The structs of earlier versions' messages are cycles, and the collector hardly ever comes.
    gc.collect()
    if not path.is_dir():
        raise BundleError(f"{path}: no such version")
    threads, rows = settings.threads_per_run, settings.rows_per_run
    keys_file = settings.trusted_keys_file
    trusted = None if keys_file is None else TrustedKeys(keys_file)
    scorer = Scorer(open_bundle(path, trusted), settings.provider, threads, rows)
    scorer.replay()
    scorer.warm_up()
    return model_of(scorer, settings.limits)


def model_of(scorer: Scorer, limits: Limits) -> Model:
    """A scorer with what surrounds it, all of one schema."""
    manifest, schema = scorer.bundle.manifest, scorer.bundle.schema
    finder = ProblemFinder(scorer.encoders, limits)
    model = Model(
        manifest.name,
        manifest.version,
        scorer,
        Batcher(scorer, scorer.rows_per_run, limits.queued_rows),
        score_decoder(schema, finder),
        rank_decoder(schema, finder),
        PlainReader.of(schema, scorer.bundle.table, limits),
    )
    way = "in one compiled pass" if model.reader else "in Python"
    _log.info("%s version %d: plain bodies are read %s", model.name, model.version, way)
    return model


def version_of(query: bytes) -> str | None:
    """The version that a query string names; None for none."""
    if not query:
        return None
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("version")
    return values[-1] if values else None

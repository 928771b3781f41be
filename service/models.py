"""The versions of one model that are loaded, and which of them answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from features.bundle import open_bundle, versions
from features.errors import BundleError
from service.batcher import Batcher
from service.bodies import BodyDecoder, rank_decoder, score_decoder
from service.compiled import PlainReader
from service.errors import NotFound, NotReady
from service.messages import RankRequest, ScoreRequest
from service.problems import ProblemFinder
from service.scorer import Scorer
from service.settings import Settings

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
    """Loaded versions; empty until the first is ready."""

    def __init__(self) -> None:
        self.loaded: dict[int, Model] = {}
        self.current: Model | None = None

    def add(self, scorer: Scorer, max_rows: int) -> None:
        """Let a scorer that has proved itself answer from now on."""
        manifest, schema = scorer.bundle.manifest, scorer.bundle.schema
        finder = ProblemFinder(scorer.encoders, max_rows)
        model = Model(
            manifest.name,
            manifest.version,
            scorer,
            Batcher(scorer, scorer.rows_per_run),
            score_decoder(schema, finder),
            rank_decoder(schema, finder),
            PlainReader.of(schema, scorer.bundle.table, max_rows),
        )
        way = "in one compiled pass" if model.reader else "in Python"
        _log.info("%s version %d: plain bodies are read %s", model.name, model.version, way)
        self.loaded[model.version] = model
        self.current = model

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
        wanted = _version_of(query)
        if wanted is None:
            return self.current
        model = self.loaded.get(int(wanted)) if wanted.isdigit() else None
        if model is None:
            loaded = ", ".join(map(str, sorted(self.loaded)))
            raise NotFound(f"this version is not loaded; loaded: {loaded}")
        return model


def load_scorer(settings: Settings) -> Scorer:
    """Scorer of the version that the settings name, proved by its golden requests and warm.

    Raises:
        BundleError: there is no such version, or it fails a check.
        ConfigError: the execution provider cannot be had.
    """
    path = bundle_path(settings)
    bundle = open_bundle(path)
    threads, rows = settings.threads_per_run, settings.most_rows_per_run
    scorer = Scorer(bundle, settings.provider, threads, rows)
    scorer.replay()
    scorer.warm_up()
    return scorer


def bundle_path(settings: Settings) -> Path:
    """`ROOT/NAME/VERSION` of the settings.

    Raises:
        BundleError: no version lies there.
    """
    if settings.version is not None:
        path = settings.bundle / str(settings.version)
        if not path.is_dir():
            raise BundleError(f"{path}: no such version")
        return path
    found = versions(settings.bundle)
    if not found:
        raise BundleError(f"{settings.bundle}: holds no version (a folder named 1, 2, ...)")
    return settings.bundle / str(found[-1])


def _version_of(query: bytes) -> str | None:
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("version")
    return values[-1] if values else None

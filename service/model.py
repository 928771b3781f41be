"""One loaded version of a model, and how it is loaded: with proof that it scores as it must."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from features.bundle import open_bundle
from features.errors import BundleError, DeepFMError
from features.signature import TrustedKeys
from service.batcher import Batcher
from service.bodies import BodyDecoder, rank_decoder, score_decoder
from service.compiled import PlainReader
from service.limits import Limits
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

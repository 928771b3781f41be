"""JSON Schemas of the answers, and of problem documents.

Objects are open: a client ignores keys that it does not know, so that an answer may gain some.
"""

from __future__ import annotations

from typing import Any

from service.body_schemas import Json, opened, ref
from service.errors import MOST_PROBLEMS
from service.limits import Limits
from service.problems import MOST_PAIRWISE
from service.routes import MOST_WARNINGS
from service.trial import KINDS

CODES = (
    "invalid_json",
    "wrong_type",
    "out_of_range",
    "unknown_category",
    "missing_value",
    "wrong_side",
    "unknown_key",
    "missing_key",
    "too_many",
    "too_long",
    "unequal_lengths",
)
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_VERSION: Json = {"type": "integer", "minimum": 1}
_SHARE: Json = {"type": "number", "minimum": 0, "maximum": 1}


def answer_schemas() -> dict[str, Json]:
    """Components of the routes that need no model, and of problem documents."""
    return {
        "Alive": _all({"status": {"const": "alive"}}),
        "Ready": _ready(),
        "Models": _models(),
        "Trial": _all({"version": _VERSION, "share": _SHARE}),
        "Problem": _problem(),
    }


def scored_schemas(limits: Limits) -> dict[str, Json]:
    """Components of the answers of `/score` and `/rank`."""
    warnings = _list(ref("Warning"), MOST_WARNINGS) | {"minItems": 1}
    told = {"model": _TEXT, "version": _VERSION}
    item = _all({"id": {"type": ["string", "integer"]}, "rank": _VERSION, "score": _SHARE})
    return {
        "ScoreAnswer": opened(
            told | {"scores": _list(_SHARE, limits.rows), "warnings": warnings},
            [*told, "scores"],
        ),
        "RankAnswer": opened(
            told
            | {
                "items": _list(item, limits.rows),
                "win_probability": _list(_list(_SHARE, MOST_PAIRWISE), MOST_PAIRWISE),
                "scored": _COUNT | {"description": "how many, if partial"},
                "warnings": warnings,
            },
            [*told, "items"],
        ),
        "Warning": _all(
            {
                "field": _TEXT,
                "code": {"enum": ["unknown_field", "truncated", "duplicate_id"]},
                "count": _COUNT,
            }
        ),
    }


def _ready() -> Json:
    told = {"status": {"const": "ready"}, "model": _TEXT, "version": _VERSION, "provider": _TEXT}
    refused = _list(_all({"version": _VERSION, "reason": _TEXT}))
    return opened(told | _beside() | {"refused": refused}, list(told))


def _models() -> Json:
    member = {
        "name": _TEXT,
        "side": {"enum": ["context", "candidate"]},
        "kind": _TEXT,
        "indices": _COUNT,
    }
    others = {
        "missing": {"enum": ["bucket", "zero", "reject"]},
        "of": _list(_TEXT) | {"description": "the parts of a cross"},
    }
    version = {
        "version": _VERSION,
        "created": _TEXT,
        "precision": _TEXT,
        "calibration": _TEXT,
        "metrics": _map(_map(_map({"type": "number"}))),
        "schema": _list(opened(member | others, list(member))),
    }
    model = {"name": _TEXT, "version": _VERSION, "versions": _list(_all(version))}
    return _all({"models": _list(opened(model | _beside(), list(model)))})


def _beside() -> Json:
    return {kind: ref("Trial") for kind in KINDS}


def _problem() -> Json:
    error = _all({"pointer": _TEXT, "code": {"enum": list(CODES)}, "message": _TEXT})
    told: Json = {
        "type": {"const": "about:blank"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
    }
    return opened(told | {"errors": _list(error, MOST_PROBLEMS) | {"minItems": 1}}, list(told))


def _all(properties: Json) -> Json:
    return opened(properties, list(properties))


def _list(items: Json, most: int | None = None) -> Json:
    document: dict[str, Any] = {"type": "array", "items": items}
    return document if most is None else document | {"maxItems": most}


def _map(values: Json) -> Json:
    return {"type": "object", "additionalProperties": values}

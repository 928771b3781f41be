"""The OpenAPI description of `/score` and `/rank`, typed per field from the loaded schema.

Types come from the structs that decode the bodies, examples and texts from the schema; what the
struct of a row cannot say (which texts a category knows) stands in the description.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from features.schema import BucketField, CategoricalField, Field, Schema, ValueField
from service.errors import MOST_PROBLEMS

_MOST_LISTED = 20
_CATEGORY = {"type": ["string", "number", "boolean", "null"]}
_EXAMPLE_CANDIDATES = 3
NEEDS_NO_KEY = ("/healthz", "/readyz", "/docs")
_PROBLEMS = {
    "400": "The body is not JSON, or a header is wrong.",
    "404": "The version is not loaded.",
    "408": "The request did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "422": "Something in the body is wrong; `errors` says what and where.",
    "429": "Too much is waiting, or too much for the deadline; see Retry-After.",
    "431": "The head of the request is too large.",
    "503": "No model is being served, or there are too many connections; see Retry-After.",
    "504": "The deadline passed before the answer.",
}


def hot_paths(schema: Schema) -> dict[str, Any]:
    """Path items of the two scoring routes."""
    return {
        "/score": _path("Click probabilities of instances", "Score", score_example(schema)),
        "/rank": _path("Rank candidates for one context", "Rank", rank_example(schema)),
    }


def require_keys(document: dict[str, Any]) -> None:
    """Say in a whole document that a key is needed, and where it is not."""
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    document["components"] = document.get("components", {}) | {"securitySchemes": schemes}
    document["security"] = [{"key": []}]
    refusal = {"description": "A key is needed: `Authorization: Bearer KEY`."}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path in NEEDS_NO_KEY:
                changed = operation | {"security": []}
            else:
                changed = operation | {"responses": operation["responses"] | {"401": refusal}}
            document["paths"] = document["paths"] | {path: methods | {method: changed}}


def components(schema: Schema) -> dict[str, Any]:
    """Schemas of the bodies."""
    context, candidate = schema.side("context"), schema.side("candidate")
    identifier = {"type": ["string", "integer"]}
    version = {"model": {"type": "string"}, "version": {"type": "integer"}}
    warnings = {"type": "array", "items": {"$ref": "#/components/schemas/Warning"}}
    item = _object({"id": identifier, "features": _ref("Candidate")}, ["id"])
    columns = _object({"id": _array(identifier), "features": _ref("CandidateColumns")}, ["id"])
    ranked = {
        "id": identifier,
        "rank": {"type": "integer", "minimum": 1},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
    }
    return {
        "Instance": _fields(schema.fields),
        "InstanceColumns": _columns(schema.fields),
        "Context": _fields(context),
        "Candidate": _fields(candidate),
        "CandidateColumns": _columns(candidate),
        "ScoreRequest": {
            "oneOf": [
                _object({"instances": _array(_ref("Instance"))}, ["instances"]),
                _object({"columns": _ref("InstanceColumns")}, ["columns"]),
            ]
        },
        "RankRequest": _object(
            {
                "context": {"anyOf": [_ref("Context"), {"type": "null"}]},
                "candidates": {"oneOf": [_array(item), columns]},
                "top_k": {"type": "integer", "minimum": 1, "description": "default: all"},
                "pairwise": {"type": "boolean", "default": False},
                "partial": {
                    "type": "boolean",
                    "default": False,
                    "description": "rank as many of the first candidates as fit the deadline",
                },
            },
            ["candidates"],
        ),
        "ScoreAnswer": _object(
            version | {"scores": _array({"type": "number"}), "warnings": warnings},
            ["model", "version", "scores"],
        ),
        "RankAnswer": _object(
            version
            | {
                "items": _array(_object(ranked, list(ranked))),
                "win_probability": _array(_array({"type": "number"})),
                "scored": {"type": "integer", "description": "how many, if partial"},
                "warnings": warnings,
            },
            ["model", "version", "items"],
        ),
        "Warning": _object(
            {
                "field": {"type": "string"},
                "code": {"enum": ["unknown_field", "truncated", "duplicate_id"]},
                "count": {"type": "integer"},
            },
            ["field", "code", "count"],
        ),
        "Problem": _problem_schema(),
    }


def score_example(schema: Schema) -> dict[str, Any]:
    """A `/score` body that works."""
    return {"instances": [{member.name: _example(member, 0) for member in schema.fields}]}


def rank_example(schema: Schema) -> dict[str, Any]:
    """A `/rank` body that works."""
    body: dict[str, Any] = {}
    if schema.side("context"):
        body["context"] = {member.name: _example(member, 0) for member in schema.side("context")}
    body["candidates"] = [
        {
            "id": f"item-{place + 1}",
            "features": {
                member.name: _example(member, place) for member in schema.side("candidate")
            },
        }
        for place in range(_EXAMPLE_CANDIDATES)
    ]
    return body


def _example(member: Field, place: int) -> Any:
    if isinstance(member, CategoricalField):
        known = list(islice(member.vocabulary, _EXAMPLE_CANDIDATES)) or ["a", "b", "c"]
        category = known[place % len(known)]
        return [category] if member.multi else category
    if isinstance(member, ValueField):
        return round((member.minimum + member.maximum) / 2, 2)
    if not member.boundaries:
        return 1
    middle = member.boundaries[len(member.boundaries) * (place + 1) // (_EXAMPLE_CANDIDATES + 1)]
    return round(middle, 2)


def _fields(members: tuple[Field, ...]) -> dict[str, Any]:
    document = _object({member.name: _value(member) for member in members}, [])
    document["required"] = [m.name for m in members if m.missing == "reject"]
    # The model's own evolution must not break its callers: other names are counted, not refused.
    document["additionalProperties"] = True
    return document


def _columns(members: tuple[Field, ...]) -> dict[str, Any]:
    document = _object({member.name: _array(_value(member)) for member in members}, [])
    return document | {"additionalProperties": True}


def _value(member: Field) -> dict[str, Any]:
    if not isinstance(member, CategoricalField):
        return {"type": ["number", "null"], "description": _number_text(member)}
    value: dict[str, Any] = dict(_CATEGORY)
    if member.multi:
        value = {"type": ["array", "null"], "items": value}
    return value | {"description": _category_text(member)}


def _number_text(member: BucketField | ValueField) -> str:
    if isinstance(member, ValueField):
        return f"A number, clipped to [{member.minimum:g}, {member.maximum:g}]."
    return f"A number, sorted into {len(member.boundaries) + 1} buckets."


def _category_text(member: CategoricalField) -> str:
    if member.hash_buckets:
        text = f"Any category; hashed into {member.hash_buckets:,} buckets."
    else:
        listed = ", ".join(f"`{text}`" for text in islice(member.vocabulary, _MOST_LISTED))
        more = len(member.vocabulary) - _MOST_LISTED
        text = f"Known categories: {listed}" + (f" and {more:,} more." if more > 0 else ".")
    return f"{text} At most {member.max_values} are used." if member.multi else text


def _path(summary: str, name: str, example: dict[str, Any]) -> dict[str, Any]:
    version = {
        "name": "version",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": "a loaded version; default the one that serves",
    }
    deadline = {
        "name": "X-Deadline-Ms",
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "description": "milliseconds after which the answer is of no use",
    }
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    responses: dict[str, Any] = {
        "200": {
            "description": "Scores.",
            "content": {"application/json": {"schema": _ref(f"{name}Answer")}},
        }
    }
    for status, text in _PROBLEMS.items():
        responses[status] = {"description": text, "content": problem}
    body = {"schema": _ref(f"{name}Request"), "example": example}
    return {
        "post": {
            "summary": summary,
            "operationId": name.lower(),
            "parameters": [version, deadline],
            "requestBody": {"required": True, "content": {"application/json": body}},
            "responses": responses,
        }
    }


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    error = _object({"pointer": text, "code": text, "message": text}, ["pointer", "code"])
    errors = _array(error) | {"maxItems": MOST_PROBLEMS}
    members = {"type": text, "title": text, "status": {"type": "integer"}, "detail": text}
    return _object(members | {"errors": errors}, list(members))


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        document["required"] = required
    return document


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}

"""The OpenAPI document: what every public route takes and answers.

Bodies are described from the schema of the model that answers and the limits (`body_schemas`);
whoever adds a route describes it here.
"""

from __future__ import annotations

from features.schema import Schema
from service.answer_schemas import answer_schemas, scored_schemas
from service.body_examples import rank_example, score_example
from service.body_schemas import Json, body_schemas, ref
from service.errors import RETRY_AFTER_S
from service.limits import Limits

NEEDS_NO_KEY = ("/healthz", "/readyz", "/docs")
_RETRY = {"Retry-After": {"required": True, "schema": {"const": RETRY_AFTER_S}}}
_PROBLEMS: dict[str, tuple[str, Json]] = {
    "400": ("The body is not JSON, a header is wrong, or it is no request in HTTP/1.1.", {}),
    "401": (
        "A key is needed: `Authorization: Bearer KEY`.",
        {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    ),
    "404": ("The version is not loaded.", {}),
    "408": ("The request did not arrive in time.", {}),
    "413": ("The body is too large.", {}),
    "415": (
        "The body is compressed.",
        {"Accept-Encoding": {"required": True, "schema": {"const": "identity"}}},
    ),
    "422": ("Something in the body is wrong; `errors` says what and where.", {}),
    "429": ("Too much is waiting, or too much for the deadline; see Retry-After.", _RETRY),
    "431": ("The head of the request is too large.", {}),
    "503": (
        "No model is being served, or there are too many connections; see Retry-After.",
        _RETRY,
    ),
    "504": ("The deadline passed before the answer.", {}),
    "505": ("The version of HTTP is neither 1.1 nor 1.0.", {}),
}
_ANY_ROUTE = ("400", "408", "429", "431", "503", "505")
_SCORING_ROUTE = (*_ANY_ROUTE, "404", "413", "415", "422", "504")
_PARAMETERS: list[Json] = [
    {
        "name": "version",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1},
        "description": "a loaded version; default the one that serves",
    },
    {
        "name": "X-Deadline-Ms",
        "in": "header",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "description": "milliseconds after which the answer is of no use",
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "schema": {"type": "string"},
        "description": "the same id gets the same version where a second one is tried",
    },
]


def document(schema: Schema | None, limits: Limits, has_keys: bool) -> Json:
    """The whole document.

    Args:
        schema: of the model that answers; without one the scoring routes are left out.
        limits: of requests.
        has_keys: whether a key is needed.
    """
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "DeepFM service",
            "description": "Click probabilities and rankings.",
            "version": "1",
        },
        "paths": _paths(schema, limits),
        "components": _components(schema, limits),
    }
    if has_keys:
        _require_keys(whole)
    return whole


def _paths(schema: Schema | None, limits: Limits) -> Json:
    text = {"text/plain": {"schema": {"type": "string"}}}
    found = {
        "/healthz": _get("healthz", "Whether the process is alive", _json("Alive")),
        "/readyz": _get("readyz", "Whether it answers, and with what", _json("Ready")),
        "/metrics": _get("metrics", "Counters for Prometheus", text),
        "/v1/models": _get("models", "Loaded versions, their metrics and fields", _json("Models")),
    }
    if schema is None:
        return found
    return found | {
        "/score": _post("Score", "Click probabilities of instances", score_example(schema), limits),
        "/rank": _post("Rank", "Rank candidates for one context", rank_example(schema), limits),
    }


def _components(schema: Schema | None, limits: Limits) -> Json:
    schemas = answer_schemas()
    if schema is not None:
        schemas |= body_schemas(schema, limits) | scored_schemas(limits)
    return {
        "schemas": schemas,
        "responses": {status: _problem(status) for status in sorted(_SCORING_ROUTE)},
    }


def _require_keys(whole: Json) -> None:
    """Say that a key is needed, and where it is not."""
    found = whole["components"]
    found["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["responses"]["401"] = _problem("401")
    whole["security"] = [{"key": []}]
    for path, methods in whole["paths"].items():
        for operation in methods.values():
            if path in NEEDS_NO_KEY:
                operation["security"] = []
            else:
                operation["responses"] |= _refusals("401")


def _get(name: str, summary: str, content: Json) -> Json:
    answers = {"200": {"description": "The answer.", "content": content}}
    responses = answers | _refusals(*_ANY_ROUTE)
    return {"get": {"summary": summary, "operationId": name, "responses": responses}}


def _post(name: str, summary: str, example: Json, limits: Limits) -> Json:
    answers = {"200": {"description": "Scores.", "content": _json(f"{name}Answer")}}
    body = {"schema": ref(f"{name}Request"), "example": example}
    return {
        "post": {
            "summary": summary,
            "operationId": name.lower(),
            "parameters": _PARAMETERS,
            "requestBody": {
                "description": f"At most {limits.depth} lists and objects inside each other.",
                "required": True,
                "content": {"application/json": body},
            },
            "responses": answers | _refusals(*_SCORING_ROUTE),
        }
    }


def _problem(status: str) -> Json:
    text, headers = _PROBLEMS[status]
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {"description": text, "headers": headers, "content": content}


def _json(name: str) -> Json:
    return {"application/json": {"schema": ref(name)}}


def _refusals(*statuses: str) -> Json:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}

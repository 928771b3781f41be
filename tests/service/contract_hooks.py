"""What schemathesis is told of the service beside its document; loaded by it, not by pytest."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

from service.answer_schemas import answer_schemas, scored_schemas
from service.limits import Limits

Json = dict[str, Any]

_UNKNOWN_HEADER = "x-schemathesis-unknown-property"


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: Json) -> None:
    """Close every answer that the document leaves open: what it does not tell is to be seen."""
    schemas = raw_schema["components"].get("schemas", {})
    for name in (*answer_schemas(), *scored_schemas(Limits())):
        _close(schemas.get(name))
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            _close(operation["responses"])


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Mend what JSON Schema cannot say of a right body: equal lengths, and 1 instead of 1.0."""
    is_right = case.meta is not None and not case.meta.is_negative_at(ParameterLocation.BODY)
    if is_right and isinstance(case.body, dict):
        schemas = case.operation.schema.raw_schema["components"].get("schemas", {})
        fields = schemas.get("InstanceColumns", {}).get("properties", {})
        body = equally_long(case.body, fields)
        case.body = with_integers(body)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Let an unknown header be accepted, as RFC 9110 §5.1 wants it.

    schemathesis lets it too, but not beside a header that is a number: it takes that for a text.
    """
    return _UNKNOWN_HEADER not in case.headers


def with_integers(body: Json) -> Json:
    """A body whose ids, `top_k` and `version` are written as integers where they are some."""
    body |= {name: _integer(body[name]) for name in ("top_k", "version") if name in body}
    found = body.get("candidates")
    if isinstance(found, dict):
        body |= {"candidates": found | {"id": [_integer(one) for one in found["id"]]}}
    elif found is not None:
        body |= {"candidates": [one | {"id": _integer(one["id"])} for one in found]}
    return body


def equally_long(body: Json, fields: Json) -> Json:
    """A body whose columns of known fields, and ids, are as long as the shortest of them."""
    if "columns" in body:
        return body | {"columns": _cut(body["columns"], fields)}
    found = body.get("candidates")
    if not isinstance(found, dict):
        return body
    features = found.get("features", {})
    shortest = min(map(len, [found["id"], *_known(features, fields)]))
    cut = {"id": found["id"][:shortest]}
    if "features" in found:
        cut["features"] = _cut(features, fields, shortest)
    return body | {"candidates": cut}


def _cut(columns: Json, fields: Json, length: int | None = None) -> Json:
    if length is None:
        length = min(map(len, _known(columns, fields)))
    return {name: column[:length] if name in fields else column for name, column in columns.items()}


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) else value


def _known(columns: Json, fields: Json) -> list[list[Any]]:
    return [column for name, column in columns.items() if name in fields]


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for one in schema:
            _close(one)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for one in schema.values():
            _close(one)

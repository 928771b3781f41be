"""What `/admin` takes and answers, as an OpenAPI document; the service itself serves none of it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_VERSION = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_OR_NULL = [{"type": "null"}]


def admin_document() -> Json:
    """All of `/admin`, as docs/api.md tells it."""
    version = {"version": {"anyOf": [_VERSION, *_OR_NULL]}}
    trial = {"version": _VERSION, "share": {"anyOf": [_SHARE, *_OR_NULL]}}
    paths: Json = {"/admin/reload": {"post": _operation("reload", _body(version, []))}}
    for kind in ("canary", "shadow"):
        paths[f"/admin/{kind}"] = {
            "post": _operation(f"begin {kind}", _body(trial, ["version"])),
            "delete": _operation(f"end {kind}"),
        }
    schemes = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Admin", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": schemes},
        "security": [{"key": []}],
    }


def _body(properties: Json, required: list[str]) -> Json:
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return {
        "required": bool(required),
        "content": {"application/json": {"schema": schema, "example": {"version": 1}}},
    }


def _operation(name: str, body: Json | None = None) -> Json:
    trial = _object({"version": _VERSION, "share": _SHARE}, ["version", "share"])
    told = {"model": {"type": "string"}, "version": _VERSION}
    answer = _object(told | {"canary": trial, "shadow": trial}, list(told))
    responses = {"200": _content("application/json", answer)}
    statuses = ["401", "503"] if body is None else ["400", "401", "404", "409", "413", "422", "503"]
    for status in statuses:
        responses[status] = _content("application/problem+json", {"type": "object"})
    operation: Json = {"operationId": name, "responses": responses}
    return operation if body is None else operation | {"requestBody": body}


def _content(kind: str, schema: Json) -> Json:
    return {"description": "The answer.", "content": {kind: {"schema": schema}}}


def _object(properties: Json, required: list[str]) -> Json:
    return {"type": "object", "properties": properties, "required": required}

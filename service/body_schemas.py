"""JSON Schemas of the bodies of `/score` and `/rank`, from the loaded schema and the limits.

They say what `service.problems` takes, as far as JSON Schema can. It cannot say:
- that columns are equally long;
- how deep a value under an unknown name may be, and how many bytes a body may have;
- which numbers float64 holds (`format: double` says it to those who know the format);
- that an integer is written as one: for JSON Schema 1.0 is an integer too, here it is none;
- that what lies beyond a list's `max_values` is dropped unread. Here the document is narrower.
"""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from features.canonical import LARGEST_EXACT, canonical_text
from features.schema import BucketField, CategoricalField, Field, Schema, ValueField
from service.limits import Limits
from service.problems import MOST_PAIRWISE

Json = dict[str, Any]

_MOST_LISTED = 20
_NULL = {"type": "null"}
_WRITTEN = "an integer is written without fraction and exponent: 1, not 1.0"
_SAME_LENGTH = "All columns of the model's fields must be equally long."


def body_schemas(schema: Schema, limits: Limits) -> dict[str, Json]:
    """Components that the request bodies are made of, by their names."""
    context, candidate = schema.side("context"), schema.side("candidate")
    return {
        "Instance": _row(schema.fields, limits),
        "InstanceColumns": _instance_columns(schema.fields, limits),
        "Context": _row(context, limits) | _without(candidate),
        "Candidate": _row(candidate, limits) | _without(context),
        "CandidateColumns": _columns(candidate, limits) | _without(context),
        "ScoreRequest": {
            "oneOf": [
                closed({"instances": _rows_of(ref("Instance"), limits)}, ["instances"]),
                closed({"columns": ref("InstanceColumns")}, ["columns"]),
            ]
        },
        "RankRequest": _rank_request(context, candidate, limits),
    }


def closed(properties: Json, required: list[str]) -> Json:
    """An object that has no other keys."""
    return opened(properties, required) | {"additionalProperties": False}


def opened(properties: Json, required: list[str]) -> Json:
    """An object that may have other keys."""
    document: Json = {"type": "object", "properties": properties}
    return document | {"required": required} if required else document


def ref(name: str) -> Json:
    """What stands among the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def _rank_request(context: tuple[Field, ...], candidate: tuple[Field, ...], limits: Limits) -> Json:
    identifier = {
        "type": ["string", "integer"],
        "maxLength": limits.text,
        "description": f"comes back as it was sent; {_WRITTEN}",
    }
    rejecting = _rejecting(candidate)
    features = ["features"] if rejecting else []
    item = closed({"id": identifier, "features": ref("Candidate")}, ["id", *features])
    columns = closed(
        {"id": _rows_of(identifier, limits), "features": ref("CandidateColumns")}, ["id"]
    )
    if rejecting:
        columns |= {
            "if": {"properties": {"id": {"maxItems": 0}}},
            "else": {
                "required": features,
                "properties": {"features": {"required": rejecting}},
            },
        }
    told = {
        "context": ref("Context") if _rejecting(context) else {"anyOf": [ref("Context"), _NULL]},
        "candidates": {"oneOf": [_rows_of(item, limits), columns]},
        "top_k": {"type": "integer", "minimum": 1, "description": f"default: all; {_WRITTEN}"},
        "pairwise": {
            "type": "boolean",
            "default": False,
            "description": f"also win probabilities; for at most {MOST_PAIRWISE} items",
        },
        "partial": {
            "type": "boolean",
            "default": False,
            "description": "rank as many of the first candidates as fit the deadline",
        },
    }
    needed = ["context", "candidates"] if _rejecting(context) else ["candidates"]
    return closed(told, needed) | {"anyOf": _few_if_pairwise()}


def _few_if_pairwise() -> list[Json]:
    few = {"maxItems": MOST_PAIRWISE}
    return [
        {"properties": {"pairwise": {"const": False}}},
        {"properties": {"top_k": {"maximum": MOST_PAIRWISE}}, "required": ["top_k"]},
        {"properties": {"candidates": few | {"properties": {"id": few}}}},
    ]


def _row(members: tuple[Field, ...], limits: Limits) -> Json:
    document = opened({m.name: _value(m, limits) for m in members}, _rejecting(members))
    # The model's own evolution must not break its callers: other names are counted, not refused.
    return document | {"additionalProperties": True}


def _columns(members: tuple[Field, ...], limits: Limits) -> Json:
    columns = {member.name: _rows_of(_value(member, limits), limits) for member in members}
    return opened(columns, []) | {"additionalProperties": True, "description": _SAME_LENGTH}


def _instance_columns(members: tuple[Field, ...], limits: Limits) -> Json:
    document = _columns(members, limits)
    document["description"] += " One at least must be there."
    document["anyOf"] = [{"required": [member.name]} for member in members]
    if _rejecting(members):
        document["if"] = {"properties": {member.name: {"maxItems": 0} for member in members}}
        document["else"] = {"required": _rejecting(members)}
    return document


def _without(members: tuple[Field, ...]) -> Json:
    """No field of the other side."""
    if not members:
        return {}
    return {"propertyNames": {"not": {"enum": [member.name for member in members]}}}


def _rejecting(members: tuple[Field, ...]) -> list[str]:
    return [member.name for member in members if member.missing == "reject"]


def _rows_of(items: Json, limits: Limits) -> Json:
    return {"type": "array", "items": items, "maxItems": limits.rows}


def _value(member: Field, limits: Limits) -> Json:
    null = [] if member.missing == "reject" else ["null"]
    if not isinstance(member, CategoricalField):
        return {
            "type": ["number", *null],
            "format": "double",
            "description": _number_text(member),
        }
    value = _category(member, limits)
    if member.multi:
        # A null in a list is no category, but does no harm.
        items = _or_null(value, "null")
        value = {"type": ["array", *null], "items": items, "maxItems": limits.elements}
        if not null:
            value["contains"] = {"not": _NULL}
    else:
        value = _or_null(value, *null)
    return value | {"description": _category_text(member)}


def _category(member: CategoricalField, limits: Limits) -> Json:
    """One category; a keyword for one type says nothing of the others."""
    value = {
        "type": ["string", "number", "boolean"],
        "maxLength": limits.text,
        "minimum": -LARGEST_EXACT,
        "maximum": LARGEST_EXACT,
    }
    is_listed = len(member.vocabulary) <= _MOST_LISTED
    if _is_rejecting_unknown(member) and is_listed:
        value["enum"] = [form for text in member.vocabulary for form in _forms(text)]
    return value


def _or_null(value: Json, *null: str) -> Json:
    allowed = value | {"type": [*value["type"], *null]}
    return allowed | {"enum": [*value["enum"], None]} if null and "enum" in value else allowed


def _forms(text: str) -> list[Any]:
    """The JSON values whose canonical text this is."""
    try:
        other = json.loads(text)
    except ValueError:
        return [text]
    is_scalar = isinstance(other, bool | int | float)
    return [text, other] if is_scalar and canonical_text(other) == text else [text]


def _is_rejecting_unknown(member: CategoricalField) -> bool:
    return member.unknown == "reject" and member.hash_buckets is None


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
    if _is_rejecting_unknown(member):
        text += " Others are refused."
    if member.multi:
        text += f" At most {member.max_values} are used; what follows them is not looked at."
    return text

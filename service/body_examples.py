"""Bodies that work, made from the loaded schema."""

from __future__ import annotations

from itertools import islice
from typing import Any

from features.schema import CategoricalField, Field, Schema, ValueField

_CANDIDATES = 3


def score_example(schema: Schema) -> dict[str, Any]:
    """A `/score` body that works."""
    return {"instances": [_row(schema.fields, 0)]}


def rank_example(schema: Schema) -> dict[str, Any]:
    """A `/rank` body that works."""
    body: dict[str, Any] = {}
    if schema.side("context"):
        body["context"] = _row(schema.side("context"), 0)
    body["candidates"] = [
        {"id": f"item-{place + 1}", "features": _row(schema.side("candidate"), place)}
        for place in range(_CANDIDATES)
    ]
    return body


def _row(members: tuple[Field, ...], place: int) -> dict[str, Any]:
    return {member.name: _example(member, place) for member in members}


def _example(member: Field, place: int) -> Any:
    if isinstance(member, CategoricalField):
        known = list(islice(member.vocabulary, _CANDIDATES)) or ["a", "b", "c"]
        category = known[place % len(known)]
        return [category] if member.multi else category
    if isinstance(member, ValueField):
        return round((member.minimum + member.maximum) / 2, 2)
    if not member.boundaries:
        return 1
    middle = member.boundaries[len(member.boundaries) * (place + 1) // (_CANDIDATES + 1)]
    return round(middle, 2)

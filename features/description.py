"""What a bundle holds, as text for a person: `deepfm inspect`."""

from __future__ import annotations

from typing import Any

from features.bundle import Bundle
from features.cross import CrossField
from features.schema import BucketField, CategoricalField, Field, Schema, ValueField

_HEADER = ("field", "side", "kind", "indices", "missing", "unknown")


def describe(bundle: Bundle, is_checked: bool = False) -> str:
    """Several lines: identity, metrics, one line per field, files with their sizes.

    Args:
        bundle: to describe.
        is_checked: whether its signature was found to be of a trusted key.
    """
    signed = "signed, not checked" if bundle.is_signed else "not signed"
    manifest = bundle.manifest
    lines = [
        f"{manifest.name} version {manifest.version}, exported {manifest.created}",
        f"precision {manifest.precision}, calibration {manifest.calibration['method']}",
        "signed by a trusted key" if is_checked else signed,
        "",
        *_metrics(manifest.metrics),
        "",
        *_columns([_HEADER, *(_row(member) for member in _members(bundle.schema))]),
        "",
        *_columns(
            [
                (name, f"{(bundle.path / name).stat().st_size:,} bytes")
                for name in sorted(manifest.files)
            ]
        ),
    ]
    return "\n".join(lines)


def _metrics(metrics: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    rows = [
        (f"{scale} {part}", *(f"{name} {value:.4f}" for name, value in values.items()))
        for scale, parts in metrics.items()
        for part, values in parts.items()
        if values
    ]
    return [", ".join(row) for row in rows]


def _members(schema: Schema) -> tuple[Field | CrossField, ...]:
    return (*schema.fields, *schema.crosses)


def _row(member: Field | CrossField) -> tuple[str, ...]:
    missing = "" if isinstance(member, CrossField) else member.missing
    unknown = member.unknown if isinstance(member, CategoricalField) else ""
    return (member.name, member.side, _kind(member), f"{member.size:,}", missing, unknown)


def _kind(field: Field | CrossField) -> str:
    if isinstance(field, CrossField):
        kind = "cross with embedding" if field.embedding else "cross"
        return f"{kind} of {', '.join(field.of)}"
    if isinstance(field, BucketField):
        return f"{len(field.boundaries) + 1} buckets"
    if isinstance(field, ValueField):
        return f"value, transform {field.transform}"
    size = f"{field.hash_buckets:,} hash buckets" if field.hash_buckets else "vocabulary"
    return f"{size}, up to {field.max_values}, {field.pooling}" if field.multi else size


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def schema_summary(schema: Schema) -> list[dict[str, Any]]:
    """One JSON-able entry per field, without its categories, and per cross."""
    return [_summary(member) for member in _members(schema)]


def _summary(member: Field | CrossField) -> dict[str, Any]:
    entry = {
        "name": member.name,
        "side": member.side,
        "kind": _kind(member),
        "indices": member.size,
    }
    if isinstance(member, CrossField):
        return entry | {"of": list(member.of)}
    return entry | {"missing": member.missing}

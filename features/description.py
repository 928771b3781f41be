"""What a bundle holds, as text for a person: `deepfm inspect`."""

from __future__ import annotations

from typing import Any

from features.bundle import Bundle
from features.schema import BucketField, CategoricalField, Field, Schema, ValueField

_HEADER = ("field", "side", "kind", "indices", "missing", "unknown")


def describe(bundle: Bundle) -> str:
    """Several lines: identity, metrics, one line per field, files with their sizes."""
    manifest = bundle.manifest
    lines = [
        f"{manifest.name} version {manifest.version}, exported {manifest.created}",
        f"precision {manifest.precision}, calibration {manifest.calibration['method']}",
        "",
        *_metrics(manifest.metrics),
        "",
        *_columns([_HEADER, *(_row(field) for field in bundle.schema.fields)]),
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


def _row(field: Field) -> tuple[str, ...]:
    unknown = field.unknown if isinstance(field, CategoricalField) else ""
    return (field.name, field.side, _kind(field), f"{field.size:,}", field.missing, unknown)


def _kind(field: Field) -> str:
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
    """One JSON-able entry per field, without its categories."""
    return [
        {
            "name": field.name,
            "side": field.side,
            "kind": _kind(field),
            "indices": field.size,
            "missing": field.missing,
        }
        for field in schema.fields
    ]

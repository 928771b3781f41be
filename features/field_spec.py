"""A `type = "numeric"` or `"categorical"` field as a person writes it, checked key against key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Literal

from features.canonical import canonical_text
from features.errors import FeatureError
from features.schema import Policy, Pooling, Side, Transform


@dataclass(frozen=True)
class LogBuckets:
    """So many equal steps of sign(x) * log1p(|x|) between the training minimum and maximum."""

    log: int

    def __post_init__(self) -> None:
        if self.log < 1:
            raise ValueError("log must be at least 1")


@dataclass(frozen=True, kw_only=True)
class NumericSpec:
    """A `type = "numeric"` field."""

    name: str
    side: Side = "candidate"
    encoding: Literal["bucket", "value"] = "bucket"
    buckets: int | LogBuckets | None = None
    boundaries: tuple[float, ...] | None = None
    transform: Transform | None = None
    missing: Policy = "bucket"

    def __post_init__(self) -> None:
        cut = self.buckets is not None or self.boundaries is not None
        if self.encoding == "value" and cut:
            raise ValueError("a value field has neither buckets nor boundaries")
        if self.encoding == "bucket" and self.transform:
            raise ValueError('transform needs encoding = "value"')
        if self.buckets is not None and self.boundaries is not None:
            raise ValueError("give buckets or boundaries, not both")
        if isinstance(self.buckets, int) and self.buckets < 1:
            raise ValueError("buckets must be at least 1")
        if not all(isfinite(boundary) for boundary in self.boundaries or ()):
            raise ValueError("boundaries must be finite")
        if any(low >= high for low, high in pairwise(self.boundaries or ())):
            raise ValueError("boundaries must be strictly increasing")


@dataclass(frozen=True, kw_only=True)
class CategoricalSpec:
    """A `type = "categorical"` field."""

    name: str
    side: Side = "candidate"
    min_count: int | None = None
    max_size: int | None = None
    hash_buckets: int | None = None
    vocabulary: tuple[str | int | float | bool, ...] | None = None
    multi: bool = False
    max_values: int | None = None
    pooling: Pooling | None = None
    missing: Policy = "bucket"
    unknown: Policy | None = None

    def __post_init__(self) -> None:
        for key in ("min_count", "max_size", "hash_buckets", "max_values"):
            number = getattr(self, key)
            if number is not None and number < 1:
                raise ValueError(f"{key} must be at least 1")
        learned = self.min_count is not None or self.max_size is not None
        if [learned, self.hash_buckets is not None, self.vocabulary is not None].count(True) > 1:
            raise ValueError("min_count/max_size, hash_buckets and vocabulary exclude each other")
        if self.hash_buckets is not None and self.unknown is not None:
            raise ValueError("a hashed field knows every category: unknown does not apply")
        if self.unknown == "reject" and (self.max_size or (self.min_count or 1) > 1):
            raise ValueError(
                'unknown = "reject" would refuse rare training rows: use min_count = 1'
            )
        if not self.multi and (self.max_values is not None or self.pooling is not None):
            raise ValueError("max_values and pooling need multi = true")
        _check_vocabulary(self.vocabulary or ())


def _check_vocabulary(vocabulary: Iterable[str | int | float | bool]) -> None:
    try:
        texts = [canonical_text(value) for value in vocabulary]
    except FeatureError as error:
        raise ValueError(f"vocabulary: {error.message}") from error
    if len(set(texts)) < len(texts):
        raise ValueError("vocabulary lists a category twice")


FieldSpec = NumericSpec | CategoricalSpec


def may_be_crossed(field: FieldSpec) -> bool:
    """Whether a field can be part of a cross: it selects one index in every row."""
    return field.encoding == "bucket" if isinstance(field, NumericSpec) else not field.multi

"""What training learned about every field: bucket boundaries, vocabularies and where indices lie.

Rules:
- A schema is immutable and valid by construction: a contradictory one raises `SchemaError`.
- Every field owns one contiguous range of the fused tables. Inside it: missing first, then unknown
  (categorical without hash_buckets only), then buckets or categories. A reserved index exists only
  where its policy is `bucket`; `zero` is the field's first index with weight 0.
- A cross (`features.cross`) owns a range of buckets and nothing reserved; its parts are
  single-valued categories and bucketed numbers.
- Ranges follow the order of the spec, crosses behind the fields, whatever has no embedding last.
- Bucket k holds `boundaries[k-1] <= x < boundaries[k]`; the end buckets are open.
- A slot is one column of a side's index matrix: one per field or cross, `max_values` for a multi
  field, within the side in the order of the ranges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from features.canonical import field_seed
from features.cross import CrossField
from features.errors import SchemaError
from features.names import RULE, needs_escape
from features.table import HashTable
from features.vocabulary import Vocabulary

Side = Literal["context", "candidate"]
Policy = Literal["bucket", "zero", "reject"]
Transform = Literal["none", "log1p", "standard"]
Pooling = Literal["mean", "sum"]

SIDES: tuple[Side, Side] = ("context", "candidate")
LARGEST_TABLE = 2**31 - 1
# Buckets of a hashed field must not move when fitting draws another seed for the vocabularies.
HASH_BUCKET_SEED = 0


@dataclass(frozen=True, kw_only=True)
class BucketField:
    """A number that selects one bucket.

    Args:
        name: column of the click log and key of the request.
        boundaries: strictly increasing cut points, float64; k of them make k + 1 buckets.
    """

    name: str
    side: Side = "candidate"
    missing: Policy = "bucket"
    boundaries: tuple[float, ...]
    embedding: bool = True

    def __post_init__(self) -> None:
        if not all(np.isfinite(self.boundaries)):
            raise SchemaError(f"field '{self.name}': boundaries must be finite")
        if any(low >= high for low, high in pairwise(self.boundaries)):
            raise SchemaError(f"field '{self.name}': boundaries must be strictly increasing")

    @property
    def reserved(self) -> int:
        """How many indices stand before the first bucket."""
        return int(self.missing == "bucket")

    @property
    def size(self) -> int:
        """How many indices the field owns."""
        return self.reserved + len(self.boundaries) + 1

    @property
    def slots(self) -> int:
        """Columns of the index matrix."""
        return 1

    @property
    def is_weighted(self) -> bool:
        """Whether a slot's weight can differ from 1."""
        return self.missing == "zero"


@dataclass(frozen=True, kw_only=True)
class ValueField:
    """A number that multiplies the embedding of its one index.

    Args:
        minimum: smallest value of the training data; smaller ones are clipped to it.
        maximum: largest value of the training data; larger ones are clipped to it.
        mean: of the clipped training values, for the transform `standard`.
        deviation: their standard deviation, > 0, for the transform `standard`.
    """

    name: str
    side: Side = "candidate"
    missing: Policy = "bucket"
    transform: Transform = "none"
    minimum: float
    maximum: float
    mean: float = 0.0
    deviation: float = 1.0
    embedding: bool = True

    def __post_init__(self) -> None:
        numbers = (self.minimum, self.maximum, self.mean, self.deviation)
        if not all(np.isfinite(numbers)) or self.minimum > self.maximum or self.deviation <= 0:
            raise SchemaError(
                f"field '{self.name}': minimum, maximum, mean and deviation must be finite, "
                "minimum at most maximum, deviation above 0"
            )

    @property
    def reserved(self) -> int:
        """How many indices stand before the value's."""
        return int(self.missing == "bucket")

    @property
    def size(self) -> int:
        """How many indices the field owns."""
        return self.reserved + 1

    @property
    def slots(self) -> int:
        """Columns of the index matrix."""
        return 1

    @property
    def is_weighted(self) -> bool:
        """Whether a slot's weight can differ from 1."""
        return True


@dataclass(frozen=True, kw_only=True)
class CategoricalField:
    """A category, or a list of them, that selects one index each.

    Args:
        vocabulary: the known categories in index order; empty when `hash_buckets` is given.
        hash_buckets: categories are hashed into so many indices instead.
        max_values: how many values of a multi field are kept, the first ones; 1 for a single one.
    """

    name: str
    side: Side = "candidate"
    missing: Policy = "bucket"
    unknown: Policy = "bucket"
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary.of(()))
    hash_buckets: int | None = None
    multi: bool = False
    max_values: int = 1
    pooling: Pooling = "mean"
    embedding: bool = True

    def __post_init__(self) -> None:
        if self.max_values < 1 or (self.max_values > 1 and not self.multi):
            raise SchemaError(f"field '{self.name}': max_values must be 1, or more if multi")
        if self.hash_buckets is not None and (self.hash_buckets < 1 or len(self.vocabulary)):
            raise SchemaError(
                f"field '{self.name}': hash_buckets must be at least 1 and excludes a vocabulary"
            )
        if self.size == 0:
            raise SchemaError(
                f"field '{self.name}': no category and no reserved index: nothing to learn"
            )

    @property
    def reserved(self) -> int:
        """How many indices stand before the first category."""
        return int(self.missing == "bucket") + int(self.unknown_index is not None)

    @property
    def unknown_index(self) -> int | None:
        """Local index of the unknown category, if it has one of its own."""
        if self.hash_buckets is not None or self.unknown != "bucket":
            return None
        return int(self.missing == "bucket")

    @property
    def size(self) -> int:
        """How many indices the field owns."""
        return self.reserved + (self.hash_buckets or len(self.vocabulary))

    @property
    def slots(self) -> int:
        """Columns of the index matrix."""
        return self.max_values if self.multi else 1

    @property
    def is_weighted(self) -> bool:
        """Whether a slot's weight can differ from 1."""
        zero_unknown = self.unknown == "zero" and self.hash_buckets is None
        return self.multi or self.missing == "zero" or zero_unknown


Field = BucketField | ValueField | CategoricalField


@dataclass(frozen=True)
class Schema:
    """All fields in spec order, and everything that follows from them.

    Args:
        fields: what a row holds; at least one of them on the candidate side; names are unique.
        seed: of the vocabulary hashes; fitting picks one without a collision.
        crosses: what is derived from the fields.
    """

    fields: tuple[Field, ...]
    seed: int = 0
    crosses: tuple[CrossField, ...] = ()

    def __post_init__(self) -> None:
        names = [member.name for member in self._members]
        for name in names:
            if not name or names.count(name) > 1:
                raise SchemaError(f"field name '{name}' is empty or used twice")
            if needs_escape(name):
                raise SchemaError(f"field name {name!r}: {RULE}")
        if not self.side("candidate"):
            raise SchemaError("no field is on the candidate side: there is nothing to rank")
        for cross in self.crosses:
            self._check_parts(cross)
        if self.size > LARGEST_TABLE:
            raise SchemaError(f"{self.size} indices: more than a table can hold ({LARGEST_TABLE})")

    @cached_property
    def ranges(self) -> dict[str, range]:
        """The fused indices each field owns, in the order of the tables."""
        ranges, offset = {}, 0
        for member in self._members:
            ranges[member.name] = range(offset, offset + member.size)
            offset += member.size
        return ranges

    @property
    def size(self) -> int:
        """How many indices there are: each has a linear weight."""
        return sum(member.size for member in self._members)

    @property
    def embedding_size(self) -> int:
        """Rows of the embedding table: the indices, the first ones, that have an embedding."""
        return sum(member.size for member in self._members if member.embedding)

    @cached_property
    def _members(self) -> tuple[Field | CrossField, ...]:
        return tuple(sorted((*self.fields, *self.crosses), key=lambda member: not member.embedding))

    def side(self, side: Side) -> tuple[Field, ...]:
        """Fields of one side, without its crosses, in the order of their slots."""
        return tuple(m for m in self.members(side) if not isinstance(m, CrossField))

    def crosses_of(self, side: Side) -> tuple[CrossField, ...]:
        """Crosses of one side in the order of their slots."""
        return tuple(m for m in self.members(side) if isinstance(m, CrossField))

    def members(self, side: Side) -> tuple[Field | CrossField, ...]:
        """Fields and crosses of one side in the order of their slots."""
        return tuple(member for member in self._members if member.side == side)

    def first_slots(self, side: Side) -> dict[str, int]:
        """Where the slots of each field and cross of a side begin."""
        slots, begin = {}, 0
        for member in self.members(side):
            slots[member.name] = begin
            begin += member.slots
        return slots

    def slots(self, side: Side) -> int:
        """Columns of the side's index matrix."""
        return sum(member.slots for member in self.members(side))

    def is_weighted(self, side: Side) -> bool:
        """Whether the side carries a weight matrix beside its index matrix."""
        return any(field.is_weighted for field in self.side(side))

    def _check_parts(self, cross: CrossField) -> None:
        fields = {member.name: member for member in self.fields}
        parts = [fields[name] for name in cross.of if name in fields]
        if len(parts) < len(cross.of) or not all(_may_be_crossed(part) for part in parts):
            raise SchemaError(
                f"cross '{cross.name}': its parts must be single-valued categorical or bucketed "
                "numeric fields of the schema"
            )
        if (cross.side == "candidate") != any(part.side == "candidate" for part in parts):
            raise SchemaError(f"cross '{cross.name}': is on another side than its parts")

    def text_seed(self, field: CategoricalField) -> int:
        """Seed under which the field's canonical texts are hashed."""
        seed = self.seed if field.hash_buckets is None else HASH_BUCKET_SEED
        return field_seed(field.name, seed)

    def build_table(self) -> HashTable:
        """Hash table from the categories of all fields to their fused indices.

        Raises:
            SchemaError: two categories share a hash under this seed (code `hash_collision`), or
                a field lists one category twice.
        """
        return self._table

    @cached_property
    def _table(self) -> HashTable:
        hashes, indices = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for member in self.fields:
            if isinstance(member, CategoricalField) and len(member.vocabulary):
                hashes.append(member.vocabulary.hashes(self.text_seed(member)))
                first = self.ranges[member.name].start + member.reserved
                indices.append(np.arange(first, first + len(member.vocabulary)))
        return HashTable.build(np.concatenate(hashes), np.concatenate(indices))


def _may_be_crossed(member: Field) -> bool:
    is_multi = isinstance(member, CategoricalField) and member.multi
    return not isinstance(member, ValueField) and not is_multi

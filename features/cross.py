"""A cross as the schema knows it: two or three fields whose pairs or triples get a weight each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from features.errors import SchemaError

MOST_PARTS = 3


@dataclass(frozen=True, kw_only=True)
class CrossField:
    """A field of no column: the indices of its parts select one of its buckets by a hash.

    It has no missing and no unknown index of its own (its parts bring theirs), and its weight is
    always 1.

    Args:
        side: `candidate` if any part is on that side.
        of: names of the parts, in the order in which they are hashed.
        hash_buckets: how many indices it owns.
        embedding: whether an index has an embedding besides its linear weight.
    """

    name: str
    side: Literal["context", "candidate"]
    of: tuple[str, ...]
    hash_buckets: int
    embedding: bool = False

    def __post_init__(self) -> None:
        if not 2 <= len(self.of) <= MOST_PARTS or len(set(self.of)) < len(self.of):
            raise SchemaError(f"cross '{self.name}': of must name two or three different fields")
        if self.hash_buckets < 1:
            raise SchemaError(f"cross '{self.name}': hash_buckets must be at least 1")

    @property
    def size(self) -> int:
        """How many indices the cross owns."""
        return self.hash_buckets

    @property
    def slots(self) -> int:
        """Columns of the index matrix."""
        return 1

    @property
    def is_weighted(self) -> bool:
        """Whether a slot's weight can differ from 1."""
        return False

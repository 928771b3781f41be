"""The buckets of crosses, from the indices of their parts: the step behind both sides' encoders.

Rules, the same for trainer, export and service:
- A part counts by its local index: 0 for the first index of its field, missing and unknown
  included; -1 where it contributes nothing (weight 0).
- key = seed + sum of factor[i] * local[i] over the parts in the order of `of`, modulo 2^64. The
  seed is `canonical.field_seed` of the cross's name, the factors are XXH64's first three primes.
- The key is mixed by the finaliser of SplitMix64 (Steele, Lea and Flood 2014), and its upper 32
  bits choose the bucket: (mixed >> 32) * hash_buckets >> 32. So no bucket can be out of range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.canonical import field_seed
from features.cross import CrossField
from features.encode import Encoded
from features.schema import HASH_BUCKET_SEED, SIDES, Schema, Side

FACTORS = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


class Crosser:
    """Fills the slots of a schema's crosses; immutable.

    Args:
        schema: the fields and crosses.
    """

    def __init__(self, schema: Schema) -> None:
        self._sides = [_Side(schema, side) for side in SIDES if schema.crosses_of(side)]
        self._context_slots = schema.slots("context")

    def fill(self, context: Encoded, candidate: Encoded) -> None:
        """Write the crosses' indices into rows of both sides, in place.

        Args:
            context: one row for all candidates, or one for each.
            candidate: `[rows]`.
        """
        for side in self._sides:
            side.fill((context, candidate))

    def fill_joined(self, index: NDArray[Any], weight: NDArray[np.float32] | None) -> None:
        """`fill` for rows of context slots, then candidate slots, of any integer type."""
        cut = self._context_slots
        context, candidate = (
            Encoded(index[:, part], None if weight is None else weight[:, part])
            for part in (slice(0, cut), slice(cut, None))
        )
        self.fill(context, candidate)


class _Side:
    """The crosses of one side."""

    def __init__(self, schema: Schema, side: Side) -> None:
        crosses = schema.crosses_of(side)
        slots = schema.first_slots(side)
        self.place = SIDES.index(side)
        self.slots = [slots[cross.name] for cross in crosses]
        self.first = np.array([schema.ranges[cross.name].start for cross in crosses])
        self.buckets = np.array([cross.hash_buckets for cross in crosses], np.uint64)
        self.seeds = np.array([cross_seed(cross) for cross in crosses], np.uint64)
        self.parts = [_Parts(schema, source, crosses) for source in SIDES]

    def fill(self, sides: tuple[Encoded, Encoded]) -> None:
        """As `Crosser.fill`."""
        key = self.seeds
        for parts, encoded in zip(self.parts, sides, strict=True):
            if parts.slots:
                key = key + parts.keys(encoded)  # [rows, crosses]
        bucket = (mix(key) >> np.uint64(32)) * self.buckets >> np.uint64(32)
        sides[self.place].index[:, self.slots] = bucket.view(np.int64) + self.first


class _Parts:
    """The fields of one side that are parts of some crosses, and their factors in each."""

    def __init__(self, schema: Schema, side: Side, crosses: Sequence[CrossField]) -> None:
        names = [
            member.name
            for member in schema.side(side)
            if any(member.name in cross.of for cross in crosses)
        ]
        slots = schema.first_slots(side)
        self.slots = [slots[name] for name in names]
        self.first = np.array([schema.ranges[name].start for name in names])
        factors = [
            [FACTORS[cross.of.index(name)] if name in cross.of else 0 for cross in crosses]
            for name in names
        ]
        self.factors = np.array(factors, np.uint64)  # [parts, crosses]

    def keys(self, encoded: Encoded) -> NDArray[np.uint64]:
        """What the parts add to the crosses' keys, `[rows, crosses]`."""
        local = encoded.index[:, self.slots] - self.first
        if encoded.weight is not None:
            local[encoded.weight[:, self.slots] == 0] = -1
        keys: NDArray[np.uint64] = local.view(np.uint64) @ self.factors
        return keys


def cross_seed(cross: CrossField) -> int:
    """Where the key of a cross begins: two crosses of equal parts collide in different places."""
    return field_seed(cross.name, HASH_BUCKET_SEED)


def mix(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the key moves every bit of the result."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))

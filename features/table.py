"""One memory-mapped hash table for the vocabularies of all fields: 64-bit hash -> index.

Theory of operation. The table is an array `[slots, 2]` uint64 of (hash, index) pairs, so that one
probe touches one cache line. A hash's home slot is `(hash >> 32) * homes >> 32`, which grows with
the hash; sorted by hash, every entry is therefore placed at its home or right behind its
predecessor, and building is a sort and a running maximum. Lookup walks forward from the home until
it meets the hash or an empty slot (hash 0). The array ends in at least one empty slot behind the
last entry, so a walk never leaves it. Half the homes are empty, which keeps walks near one step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.errors import SchemaError

NOT_FOUND = -1
_HOMES_PER_ENTRY = 2
_SHIFT = np.uint64(32)


class HashTable:
    """Read-only map from 64-bit hashes to indices. 0 is no hash: what it finds is left open.

    Args:
        slots: `[n, 2]` uint64 of (hash, index), as `build` lays it out; may be memory-mapped.
        homes: how many of the slots are homes; the rest is room behind the last home.
    """

    def __init__(self, slots: NDArray[np.uint64], homes: int) -> None:
        if slots.ndim != 2 or slots.shape[1] != 2 or slots.dtype != np.uint64:
            raise SchemaError("the hash table is not a [n, 2] array of uint64")
        if not 0 < homes < len(slots) or slots[-1, 0] != 0:
            raise SchemaError("the hash table has no empty slot at its end")
        self.slots = slots
        self.homes = homes
        self._hashes = slots[:, 0]
        self._indices = slots[:, 1]
        # Indexing a memoryview gives a Python int without a numpy scalar in between.
        self._flat = slots.data.cast("B").cast("Q")

    @classmethod
    def build(cls, hashes: NDArray[np.uint64], indices: NDArray[np.int64]) -> HashTable:
        """Table of `hashes[i] -> indices[i]`, both `[entries]`.

        Raises:
            SchemaError: two entries share one hash (code `hash_collision`), or a hash is 0.
        """
        order = np.argsort(hashes)
        sorted_hashes = hashes[order]
        if len(hashes) and sorted_hashes[0] == 0:
            raise SchemaError("a hash of 0 cannot be stored")
        if np.any(sorted_hashes[1:] == sorted_hashes[:-1]):
            raise SchemaError("two categories have the same 64-bit hash", "hash_collision")
        homes = max(1, len(hashes) * _HOMES_PER_ENTRY)
        home = _home(sorted_hashes, homes)
        steps = np.arange(len(hashes))
        place = np.maximum.accumulate(home - steps) + steps
        length = max(homes, int(place[-1]) + 1 if len(place) else 0) + 1
        slots = np.zeros((length, 2), np.uint64)
        slots[place, 0] = sorted_hashes
        slots[place, 1] = indices[order].astype(np.uint64)
        return cls(slots, homes)

    def find(self, hash_: int) -> int:
        """Index of one hash, or `NOT_FOUND`; the cheaper way for a few dozen values."""
        flat = self._flat
        at = ((hash_ >> 32) * self.homes >> 32) * 2
        while (found := flat[at]) != 0:
            if found == hash_:
                return flat[at + 1]
            at += 2
        return NOT_FOUND

    def find_all(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Indices of many hashes `[n]`, `NOT_FOUND` where absent: as `find` on each."""
        at = _home(hashes, self.homes)
        seen = self._hashes[at]
        result = self._indices[at].view(np.int64)
        hit = seen == hashes
        if not hit.all():
            result[~hit] = NOT_FOUND
            walking = np.flatnonzero(~hit & (seen != 0))
            at = at[walking]
            while len(walking):
                at += 1
                seen = self._hashes[at]
                hit = seen == hashes[walking]
                result[walking[hit]] = self._indices[at[hit]].view(np.int64)
                on = ~hit & (seen != 0)
                walking, at = walking[on], at[on]
        return result


def _home(hashes: NDArray[np.uint64], homes: int) -> NDArray[np.int64]:
    return ((hashes >> _SHIFT) * np.uint64(homes) >> _SHIFT).view(np.int64)

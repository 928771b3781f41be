"""A `type = "cross"` field as a person writes it, and what its parts may be."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from features.cross import MOST_PARTS
from features.errors import ConfigError

DEFAULT_HASH_BUCKETS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CrossSpec:
    """A field of no column, derived from others; docs/spec.md tells every key."""

    name: str
    of: tuple[str, ...]
    hash_buckets: int = DEFAULT_HASH_BUCKETS
    embedding: bool = False

    def __post_init__(self) -> None:
        if not 2 <= len(self.of) <= MOST_PARTS:
            raise ValueError("of must name two or three fields")
        for name in self.of:
            if self.of.count(name) > 1:
                raise ValueError(f"of names '{name}' twice")
        if self.hash_buckets < 1:
            raise ValueError("hash_buckets must be at least 1")


def check_parts(cross: CrossSpec, crossable: Collection[str], others: Collection[str]) -> None:
    """Refuse a part that cannot be one.

    Args:
        cross: as written.
        crossable: names of the single-valued categorical and the bucketed numeric fields.
        others: names of all other fields, crosses included.

    Raises:
        ConfigError: a part is no field, or a field of another kind.
    """
    where = f"fields.{cross.name}.of"
    for name in cross.of:
        if name in others:
            raise ConfigError(
                f"{where}: '{name}' cannot be crossed; a part must be a single-valued categorical "
                "or a bucketed numeric field"
            )
        if name not in crossable:
            near = difflib.get_close_matches(name, crossable, 1, 0.0)
            hint = f"; the nearest one that can be crossed is '{near[0]}'" if near else ""
            raise ConfigError(f"{where}: '{name}' is no field{hint}")

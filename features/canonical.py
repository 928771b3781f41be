"""The canonical text of a category, and its 64-bit hash.

Rules, the same for the click log and for a request:
- a string is itself, untouched;
- an integer is its decimal; a float with an integral value is that integer; any other float its
  shortest repr; a boolean is `true` or `false`. So 1, 1.0 and "1" are one category, true is not 1;
- a number beyond 2^53 in magnitude is refused: JSON readers disagree about its digits, so such
  identifiers must be sent as strings.

A hash of 0 means "missing" everywhere (and "empty slot" in `features.table`); a text that hashes
to 0 is moved to 1.
"""

from __future__ import annotations

import xxhash

from features.errors import FeatureError

LARGEST_EXACT = 2**53


def canonical_text(value: str | int | float) -> str:
    """Text under which a category is known.

    Raises:
        FeatureError: a number beyond 2^53 in magnitude (code `out_of_range`).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if not -LARGEST_EXACT <= value <= LARGEST_EXACT:
        raise FeatureError(
            "a category given as a number must lie within 2^53 of zero; "
            "send larger identifiers as strings",
            "out_of_range",
        )
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def field_seed(name: str, seed: int) -> int:
    """Hash seed of one field: two fields never share the hash of a text, whatever their order."""
    return xxhash.xxh3_64_intdigest(name.encode(), seed)


def hash_text(text: str, seed: int) -> int:
    """64-bit xxh3 of a canonical text under a `field_seed`; never 0."""
    return xxhash.xxh3_64_intdigest(text.encode(), seed) or 1

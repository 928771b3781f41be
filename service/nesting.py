"""How deep decoded JSON is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def is_deeper(values: Sequence[Any], most: int) -> bool:
    """Whether any of the values holds more than `most` lists and objects inside each other.

    Level by level rather than value by value: a body of scalars costs one pass.
    """
    level: list[Any] = [values]
    for _ in range(most + 1):
        level = [
            child
            for outer in level
            for child in (outer.values() if type(outer) is dict else outer)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True

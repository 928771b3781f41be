"""How much one request may hold, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the work for one loaded version.

    Args:
        rows: most instances or candidates of a request.
        text: most characters of a category, and of an id that is a text.
        elements: most elements of a multi-valued field's list.
        queued_rows: most rows that wait in either queue of the batcher.
    """

    rows: int = 10_000
    text: int = 1024
    elements: int = 1000
    queued_rows: int = 65_536

"""How much one request may hold, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass

# Lists and objects around a value of a candidate. Around others there are fewer: what is deeper
# than is sure to be allowed, the slow way judges.
MOST_AROUND = 4


@dataclass(frozen=True)
class Limits:
    """Bounds of the work for one loaded version.

    Args:
        rows: most instances or candidates of a request.
        text: most characters of a category, and of an id that is a text.
        elements: most elements of a multi-valued field's list.
        depth: most lists and objects inside each other, the body itself counted.
        queued_rows: most rows that wait in either queue of the batcher.
    """

    rows: int = 10_000
    text: int = 1024
    elements: int = 1000
    depth: int = 32
    queued_rows: int = 65_536

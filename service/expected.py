"""How many rows a request has, judged by the length of its body before that is read."""

from __future__ import annotations

_NEWEST_SHARE = 0.1


class ExpectedRows:
    """The rows in a byte of recent bodies of one route.

    It falls at once and rises slowly: bodies differ, and one that is refused is not read, so
    nothing is learnt of it.
    """

    def __init__(self) -> None:
        self._row_share = 0.0

    def of(self, length: int) -> int:
        """Rows of a body of so many bytes, at least 1."""
        return max(1, int(length * self._row_share))

    def learn(self, length: int, rows: int) -> None:
        """A body of so many bytes had to have so many rows scored."""
        if length:
            found = rows / length
            share = _NEWEST_SHARE if found > self._row_share > 0 else 1.0
            self._row_share += share * (found - self._row_share)

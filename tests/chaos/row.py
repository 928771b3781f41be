"""What a fault did, as a row of the table."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.chaos.load import Load

_COLUMNS = ("fault", "injected", "requests", "wrong", "failed", "allowed", "worst ms")


@dataclass
class Row:
    """One fault.

    Args:
        fault: its name.
        injected: how often, and what.
        allowed: most answers that may fail.
        broken: promises that did not hold, besides.
    """

    fault: str
    injected: str
    allowed: int = 0
    requests: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    worst_s: float = 0.0
    broken: list[str] = field(default_factory=list)

    def add(self, load: Load) -> None:
        """Take in what a load has seen."""
        self.requests += load.requests
        self.wrong += load.wrong
        self.failed += [failure.told for failure in load.failed]
        self.worst_s = max(self.worst_s, load.worst_s)

    @property
    def is_kept(self) -> bool:
        """Whether every promise was."""
        return not self.wrong and not self.broken and len(self.failed) <= self.allowed

    def cells(self) -> list[str]:
        counts = (self.requests, len(self.wrong), len(self.failed), self.allowed)
        return [self.fault, self.injected, *map(str, counts), f"{1e3 * self.worst_s:.0f}"]


def table(rows: list[Row]) -> str:
    """The rows as a table of Markdown, which is plain enough to read."""
    lines = [list(_COLUMNS), *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)

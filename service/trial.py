"""What a second version does beside the one that answers."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["canary", "shadow"]
KINDS: tuple[Kind, ...] = ("canary", "shadow")


class Trial(msgspec.Struct, frozen=True, tag=True):
    """A second version: a canary answers a share of the requests, a shadow scores them as well.

    Args:
        version: the second one.
        kind: what it does.
        share: of the requests, above 0 and at most 1.
    """

    version: int
    kind: Kind
    share: float

    def told(self) -> dict[str, object]:
        """As the routes tell of it."""
        return {self.kind: {"version": self.version, "share": self.share}}

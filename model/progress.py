"""What the training loop has seen so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Progress:
    """What the loop has seen.

    Args:
        history: one entry per epoch.
        best_epoch: counted from 1; 0 before the first.
        best_auc: on the validation rows; GAUC for the pairwise loss.
        best_state: the network's weights after that epoch.
        best_seconds: training time until then.
        seconds: training time in all.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_auc: float = -1.0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_seconds: float = 0.0
    seconds: float = 0.0

    def seen(self) -> dict[str, Any]:
        """All of it but the weights."""
        return {name: value for name, value in vars(self).items() if name != "best_state"}

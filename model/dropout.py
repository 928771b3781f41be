"""Dropout as torch has it, from a quarter of the random numbers.

torch draws one per element, on one thread: 13 ms for 4,096 x 400 where these passes take 4.5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STEPS = 1 << 16  # of a random number; four come of one draw


class Dropout(nn.Dropout):
    """Dropout whose share is kept to 1/65,536."""

    def forward(self, input: Tensor) -> Tensor:
        """In training, `input` with a share of its elements zeroed and the others scaled up."""
        if not self.training:
            return super().forward(input)
        dropped = min(round(self.p * _STEPS), _STEPS - 1)
        draws = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        steps = draws.view(torch.int16)[: input.numel()].view(input.shape)
        keep = (steps >= dropped - _STEPS // 2).to(input.dtype)
        return input * keep.mul_(_STEPS / (_STEPS - dropped))

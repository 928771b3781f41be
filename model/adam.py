"""Torch's Adam, its state as one flat set of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """As `torch.optim.Adam`; `state_dict` gives `PARAMETER.KEY -> tensor`, and nothing else."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on besides the network."""
        state = super().state_dict()["state"]
        return {f"{at}.{key}": value for at, kept in state.items() for key, value in kept.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state_dict.items():
            at, _, key = name.partition(".")
            state.setdefault(int(at), {})[key] = tensor
        super().load_state_dict(super().state_dict() | {"state": state})

"""The optimiser of a network: Adam on everything but the wide weights, which have Adagrad."""

from __future__ import annotations

from typing import Any

import torch

from model.config import TrainConfig
from model.deepfm import DeepFM

# Small beside the squares of a batch's mean gradients: 0.1 was measured to learn nothing.
_INITIAL_ACCUMULATOR = 1e-8


class Optimizer:
    """Steps all of a network's parameters.

    A wide weight is met rarely, and every meeting must count: Adagrad takes its learning rate from
    the row's own gradients, and touches the rows of a batch only.

    Args:
        network: whose parameters.
        config: learning rates, and the L2 penalty of the tables.
    """

    def __init__(self, network: DeepFM, config: TrainConfig) -> None:
        tables = [network.embedding.weight, network.linear.weight]
        self._dense = [*tables, network.bias, *network.deep.parameters()]
        self._clip = config.gradient_clip
        groups: list[dict[str, Any]] = [
            {"params": tables, "weight_decay": config.embedding_l2},
            {"params": self._dense[len(tables) :]},
        ]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Adam(groups, lr=config.learning_rate, fused=True)
        ]
        if network.wide is not None:
            # The default, said aloud: torch warns as long as nobody chose.
            torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]
            wide = torch.optim.Adagrad(
                network.wide.parameters(),
                lr=config.wide_learning_rate,
                initial_accumulator_value=_INITIAL_ACCUMULATOR,
            )
            self.parts.append(wide)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Clip the gradients, if the config says so, and move the parameters."""
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self._dense, self._clip)
        for part in self.parts:
            part.step()

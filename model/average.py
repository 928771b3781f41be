"""The moving average of a network's weights: what is judged and kept instead of the last step's."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from model.deepfm import DeepFM


class WeightAverage:
    """Exponential moving average over steps, batch norm's statistics included.

    Args:
        network: in training.
        decay: what the average keeps of itself at a step; the first steps keep less, so that the
            initial weights are soon forgotten.

    Source: Polyak and Juditsky 1992; the exponential form and its warm-up as in TensorFlow's
    `ExponentialMovingAverage(decay, num_updates)`.
    """

    def __init__(self, network: DeepFM, decay: float) -> None:
        self.network = copy.deepcopy(network).eval()
        self.decay = decay
        self.steps = 0
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more step."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        kept, new = zip(*self._floats, strict=True)
        torch._foreach_lerp_(kept, new, share)
        for count, counted in self._counts:
            count.copy_(counted)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next update depends on, as flat tensors."""
        state = {name: value.clone() for name, value in self.network.state_dict().items()}
        return state | {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            KeyError, RuntimeError: a tensor is missing or of another shape.
        """
        self.steps = int(state["steps"])
        self.network.load_state_dict({n: value for n, value in state.items() if n != "steps"})


def _tensors(network: DeepFM) -> list[Tensor]:
    return list(network.state_dict().values())

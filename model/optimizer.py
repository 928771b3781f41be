"""Adam, which touches a large table in the rows of a batch only, and Adagrad for the wide part.

A dense step reads and writes every row of a table and of two tables of moments: for a million rows
that takes longer than all the rest. A row that a batch does not hold has no gradient; leaving its
moments alone until it comes again is Adam as `torch.optim.SparseAdam` does it.

The L2 penalty then reaches a row only in the steps that touch it, so rare rows are drawn to zero
less than by a dense step. That costs accuracy where tables are small (up to 0.002 AUC, measured).
There a dense step is cheap, and it is taken unless a table has more rows than a batch has places.

A wide weight, of a cross without an embedding, is met rarely, and every meeting must count: Adagrad
takes its learning rate from the row's own gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from model.average import WeightAverage
from model.config import TrainConfig
from model.deepfm import DeepFM
from model.tables import IS_COMPILED, memory, summed

if IS_COMPILED:
    from model import _tables

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8
ADAGRAD_EPS = 1e-10
# Small beside the squares of a batch's mean gradients: 0.1 was measured to learn nothing.
ADAGRAD_START = 1e-8


class Optimizer:
    """One step for all parameters of a network.

    Args:
        network: whose parameters it changes in place.
        config: learning rate, L2 penalty of the tables, clipping, batch size.
    """

    def __init__(self, network: DeepFM, config: TrainConfig) -> None:
        self.network = network
        self.config = config
        self.steps = 0
        self.learning_rate = config.learning_rate
        tables = {"embedding": network.embedding.weight, "linear": network.linear.weight}
        most_touched = config.batch_size * len(network.embedded_slots)
        self.moments = {
            name: torch.zeros(len(table), 2 * table.shape[1])
            for name, table in tables.items()
            if len(table) > most_touched
        }
        self.average: WeightAverage | None = None
        if config.weight_average:
            self.average = WeightAverage(network, config.weight_average)
        self.wide_sums: Tensor | None = None
        if network.wide is not None:
            self.wide_sums = torch.full_like(network.wide.weight, ADAGRAD_START)
        self.dense_tables = [table for name, table in tables.items() if name not in self.moments]
        rest = [network.bias, *network.deep.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": self.dense_tables, "weight_decay": config.embedding_l2},
            {"params": rest},
        ]
        self.dense = torch.optim.Adam(
            [group for group in groups if group["params"]],
            lr=config.learning_rate, betas=(BETA1, BETA2), eps=ADAM_EPS, fused=True,
        )  # fmt: skip

    def zero_grad(self) -> None:
        """Forget the last step's gradients."""
        self.network.zero_grad()

    def step(self) -> None:
        """Clip the gradient if the config says so, but for the wide one; change every parameter."""
        self.steps += 1
        touched = self._touched()
        if self.config.gradient_clip:
            sparse = [values for _, _, _, values in touched]
            dense = [one.grad for one in self._dense_parameters() if one.grad is not None]
            clip_gradient([*sparse, *dense], self.config.gradient_clip)
        rates = AdamRates(self.learning_rate, self.config.embedding_l2, self.steps)
        for weight, moments, rows, values in touched:
            adam_rows(weight, moments, rows, values, rates)
        self._step_wide()
        self.dense.step()
        if self.average is not None:
            self.average.update()

    def go_back(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from weights that were judged better, with Adam's learning rate times the decay.

        Adagrad's rate falls by itself. Moments and sums of gradients stay as they are.

        Args:
            weights: `state_dict` of `judged` as it was then; copied.
        """
        self.network.load_state_dict(weights)
        self.judged.load_state_dict(weights)
        self._set_learning_rate(self.learning_rate * self.config.learning_rate_decay)

    @property
    def judged(self) -> DeepFM:
        """The network that is judged and kept: the average if there is one."""
        return self.network if self.average is None else self.average.network

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on besides the network, as flat tensors without views."""
        state = {
            "steps": torch.tensor(self.steps),
            "learning_rate": torch.tensor(self.learning_rate, dtype=torch.float64),
        }
        state |= {f"{name}.moments": moments for name, moments in self.moments.items()}
        state |= {} if self.wide_sums is None else {"wide.sums": self.wide_sums}
        averaged = {} if self.average is None else self.average.state_dict()
        state |= {f"average.{name}": value for name, value in averaged.items()}
        for number, parameter in enumerate(self._dense_parameters()):
            for name, value in self.dense.state[parameter].items():
                state[f"dense.{number}.{name}"] = value
        return {name: value.clone() for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave for a network and a config of the same sizes.

        Raises:
            KeyError: a tensor is missing.
        """
        self.steps = int(state["steps"])
        self._set_learning_rate(float(state["learning_rate"]))
        for name, moments in self.moments.items():
            moments.copy_(state[f"{name}.moments"])
        if self.wide_sums is not None:
            self.wide_sums.copy_(state["wide.sums"])
        if self.average is not None:
            self.average.load_state_dict(_part(state, "average."))
        for number, parameter in enumerate(self._dense_parameters()):
            part = _part(state, f"dense.{number}.")
            self.dense.state[parameter] = {name: value.clone() for name, value in part.items()}

    def _set_learning_rate(self, rate: float) -> None:
        self.learning_rate = rate
        for group in self.dense.param_groups:
            group["lr"] = rate

    def _step_wide(self) -> None:
        wide = self.network.wide
        if wide is not None and self.wide_sums is not None and wide.weight.grad is not None:
            rate = self.config.wide_learning_rate
            adagrad_rows(wide.weight, self.wide_sums, *summed(wide.weight.grad), rate)

    def _touched(self) -> list[tuple[Parameter, Tensor, Tensor, Tensor]]:
        """Weight, moments, rows and values of the sparse updates; spreads the others' gradients."""
        for table in self.dense_tables:
            table.grad = None if table.grad is None else table.grad.to_dense()
        tables = [(self.network.get_parameter(f"{n}.weight"), m) for n, m in self.moments.items()]
        return [(w, moments, *summed(w.grad)) for w, moments in tables if w.grad is not None]

    def _dense_parameters(self) -> list[Parameter]:
        return [one for group in self.dense.param_groups for one in group["params"]]


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}


@dataclass(frozen=True)
class AdamRates:
    """How far one step of Adam goes.

    Args:
        learning_rate: of the config.
        l2: strength l of the penalty 0.5 * l * w^2.
        steps: number of this step, from 1.
    """

    learning_rate: float
    l2: float
    steps: int

    @property
    def rate(self) -> float:
        """Learning rate over the bias correction of the first moment."""
        return self.learning_rate / (1 - BETA1**self.steps)

    @property
    def scale(self) -> float:
        """What corrects the bias of the root of the second moment."""
        return 1 / sqrt(1 - BETA2**self.steps)


@torch.no_grad()
def adam_rows(
    weight: Tensor, moments: Tensor, rows: Tensor, values: Tensor, rates: AdamRates
) -> None:
    """One step of Adam on some rows of a table, in place.

    Args:
        weight: `[size, dim]` float32.
        moments: `[size, 2 * dim]` float32: first and second moment side by side, since random
            access pays per cache line.
        rows: `[touched]` int64, each once.
        values: `[touched, dim]` float32, their gradients.
        rates: of this step.

    Source: Kingma and Ba 2015, with the penalty's gradient added first, as `torch.optim.Adam` does.
    """
    dim = weight.shape[1]
    if IS_COMPILED and weight.device.type == "cpu":
        _tables.adam_rows(
            *(memory(part) for part in (weight, moments, rows, values)), dim, rates.l2,
            rates.rate, BETA1, BETA2, rates.scale, ADAM_EPS, torch.get_num_threads(),
        )  # fmt: skip
        return
    old, state = weight[rows], moments[rows]
    grad = values + rates.l2 * old
    first = state[:, :dim].lerp(grad, 1 - BETA1)
    second = BETA2 * state[:, dim:] + (1 - BETA2) * grad * grad
    moments[rows] = torch.cat([first, second], 1)
    weight[rows] = old - rates.rate * first / (second.sqrt() * rates.scale + ADAM_EPS)


@torch.no_grad()
def adagrad_rows(
    weight: Tensor, sums: Tensor, rows: Tensor, values: Tensor, learning_rate: float
) -> None:
    """One step of Adagrad on some rows of a table, in place.

    Args:
        weight: `[size, dim]` float32; a slice of rows of a larger table will do.
        sums: `[size, dim]` float32, squares of all gradients so far; starts above 0.
        rows: `[touched]` int64, each once, counted from the slice's first row.
        values: `[touched, dim]` float32, their gradients.
        learning_rate: above 0.

    Source: Duchi, Hazan and Singer 2011.
    """
    if IS_COMPILED and weight.device.type == "cpu":
        _tables.adagrad_rows(
            *(memory(part) for part in (weight, sums, rows, values)), weight.shape[1],
            learning_rate, ADAGRAD_EPS, torch.get_num_threads(),
        )  # fmt: skip
        return
    total = sums[rows] + values * values
    sums[rows] = total
    weight[rows] -= learning_rate * values / (total.sqrt() + ADAGRAD_EPS)


def clip_gradient(grads: list[Tensor], most: float) -> None:
    """Scale gradients in place so that their common norm is at most `most`."""
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale)

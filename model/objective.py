"""`[train]` made into what a step minimises, and the batches that it needs.

    loss(pointwise) = P + r_drop * R(rows)
    loss(pairwise)  = Q + r_drop * R(pairs)
    loss(joint)     = loss(pointwise) + pairwise_weight * loss(pairwise)

P is the log loss of the rows, Q that of pairs inside a group, R the two-way KL divergence between
two passes with independent dropout; P and Q are means over both passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Generator, Tensor

from model.batches import Groups, row_batches
from model.config import TrainConfig
from model.losses import pair_logits, pairwise_loss, pointwise_loss, r_drop_loss
from model.pairs import draw_pairs
from model.rows import Rows


@dataclass(frozen=True)
class Batch:
    """Some of the training rows as tensors, with the shapes of `model.rows.Rows`."""

    index: Tensor
    weight: Tensor | None
    label: Tensor
    group: Tensor | None
    row_weight: Tensor | None


class Objective:
    """The loss of batches of some training rows.

    Args:
        config: which loss.
        rows: the training rows; with groups unless the loss is pointwise.
        generator: shuffles rows and draws pairs.
    """

    def __init__(self, config: TrainConfig, rows: Rows, generator: Generator) -> None:
        self.config = config
        self.generator = generator
        self.rows = rows
        self.groups: Groups | None = None
        self.paired_rows = 0
        if config.loss != "pointwise":
            assert rows.group is not None
            self.groups = Groups(rows.group, config.group_rows)

    def batches(self) -> Iterator[Tensor]:
        """Row numbers of the batches of one epoch, shuffled; by group where pairs are drawn."""
        self.paired_rows = 0
        if self.groups is None:
            return row_batches(self.rows, self.config.batch_size, self.generator)
        return self.groups.batches(self.config.batch_size, self.generator)

    def report(self) -> dict[str, float]:
        """Share of the rows that formed a pair in the epoch just seen; nothing without pairs."""
        return {} if self.groups is None else {"pair_coverage": self.paired_rows / len(self.rows)}

    def __call__(self, network: Callable[..., Tensor], batch: Batch) -> Tensor:
        """Scalar loss of one batch; the network is run once, with two passes under R-Drop."""
        passes = 2 if self.config.r_drop else 1
        logits = network(batch.index, batch.weight, passes).view(passes, -1)
        loss = logits.new_zeros(())
        if self.config.loss != "pairwise":
            loss = loss + pointwise_loss(logits, batch.label, batch.row_weight)
            loss = loss + self._r_drop(logits, batch.row_weight)
        if self.config.loss != "pointwise":
            weight = self.config.pairwise_weight if self.config.loss == "joint" else 1.0
            loss = loss + weight * self._pairwise(logits, batch)
        return loss

    def _pairwise(self, logits: Tensor, batch: Batch) -> Tensor:
        assert batch.group is not None
        pairs = draw_pairs(
            batch.label.numpy(),
            batch.group.numpy(),
            None if batch.row_weight is None else batch.row_weight.numpy(),
            self.config.pairs_per_positive,
            self.generator,
        )
        self.paired_rows += pairs.rows()
        margins = pair_logits(logits, pairs.positive, pairs.negative)
        return pairwise_loss(margins, pairs.weight) + self._r_drop(margins, pairs.weight)

    def _r_drop(self, logits: Tensor, weights: Tensor | None) -> Tensor:
        if not self.config.r_drop:
            return logits.new_zeros(())
        return self.config.r_drop * r_drop_loss(logits, weights)

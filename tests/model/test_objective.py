from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.config import TrainConfig
from model.losses import pair_logits, pairwise_loss, pointwise_loss, r_drop_loss
from model.objective import Batch, Objective
from model.pairs import draw_pairs
from model.rows import Rows

LABEL = torch.tensor([1.0, 0, 0, 1, 1, 0])
GROUP = torch.tensor([1, 1, 1, 1, 2, 2])
WEIGHT = torch.tensor([1.0, 2, 1, 0.5, 1, 1])
LOGITS = torch.tensor([[0.5, -1.0, 2.0, 1.0, 0.0, -3.0], [0.3, -1.5, 2.5, 0.0, 1.0, -2.0]])


class Passes:
    """A network whose two passes give the logits above."""

    def __init__(self, logits: Tensor = LOGITS) -> None:
        self.logits = logits
        self.calls: list[int] = []

    def __call__(self, index: Tensor, weight: Tensor | None, passes: int) -> Tensor:
        self.calls.append(passes)
        return self.logits[:passes].flatten()


def loss(network: Passes, label: Tensor = LABEL, **options: Any) -> Tensor:
    config = TrainConfig(pairs_per_positive=9, **options)
    objective = Objective(config, rows(label), torch.Generator().manual_seed(0))
    batch = Batch(torch.zeros(6, 1), None, label, GROUP, WEIGHT)
    return objective(network, batch)


def rows(label: Tensor) -> Rows:
    index = np.zeros((6, 1), np.int32)
    return Rows(index, None, label.numpy(), GROUP.numpy(), WEIGHT.numpy())


def pair_terms() -> tuple[Tensor, Tensor]:
    """Pair logits of both passes and the pairs' weights: all pairs, so nothing is drawn."""
    pairs = draw_pairs(LABEL.numpy(), GROUP.numpy(), WEIGHT.numpy(), 9, torch.Generator())
    return pair_logits(LOGITS, pairs.positive, pairs.negative), pairs.weight


def test_pointwise_is_the_weighted_log_loss_of_one_pass() -> None:
    network = Passes()
    torch.testing.assert_close(loss(network), pointwise_loss(LOGITS[0], LABEL, WEIGHT))
    assert network.calls == [1]


def test_pairwise_is_the_weighted_log_loss_of_pairs() -> None:
    margins, weight = pair_terms()
    expected = pairwise_loss(margins[0], weight)
    torch.testing.assert_close(loss(Passes(), loss="pairwise"), expected)


@pytest.mark.parametrize("r_drop", [0.0, 0.7])
def test_joint_adds_both_losses_with_their_terms(r_drop: float) -> None:
    parts = [loss(Passes(), loss=kind, r_drop=r_drop) for kind in ("pointwise", "pairwise")]
    joint = loss(Passes(), loss="joint", pairwise_weight=3.0, r_drop=r_drop)
    torch.testing.assert_close(joint, parts[0] + 3 * parts[1])


def test_r_drop_is_on_rows_for_pointwise_and_on_pairs_for_pairwise() -> None:
    margins, weight = pair_terms()
    rows_term = pointwise_loss(LOGITS, LABEL, WEIGHT) + 0.7 * r_drop_loss(LOGITS, WEIGHT)
    pairs_term = pairwise_loss(margins, weight) + 0.7 * r_drop_loss(margins, weight)
    network = Passes()
    torch.testing.assert_close(loss(network, r_drop=0.7), rows_term)
    torch.testing.assert_close(loss(network, r_drop=0.7, loss="pairwise"), pairs_term)
    assert network.calls == [2, 2]


@pytest.mark.parametrize("kind", ["pointwise", "pairwise", "joint"])
def test_r_drop_of_equal_passes_is_zero(kind: Any) -> None:
    """As with dropout 0."""
    equal = LOGITS[:1].expand(2, 6)
    torch.testing.assert_close(
        loss(Passes(equal), loss=kind, r_drop=5.0), loss(Passes(equal), loss=kind)
    )


@pytest.mark.parametrize("kind", ["pairwise", "joint"])
def test_batch_without_a_pair_has_a_finite_loss(kind: Any) -> None:
    logits = LOGITS.clone().requires_grad_()
    clicked = torch.ones(6)
    found = loss(Passes(logits), clicked, loss=kind, r_drop=1.0)
    found.backward()  # type: ignore[no-untyped-call]
    assert found.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_report_is_the_share_of_rows_in_pairs_of_one_epoch() -> None:
    label = torch.tensor([1.0, 0, 0, 1, 1, 1])
    config = TrainConfig(loss="pairwise", pairs_per_positive=9, batch_size=4)
    objective = Objective(config, rows(label), torch.Generator().manual_seed(0))
    for _ in range(2):
        for chosen in objective.batches():
            group, weight = GROUP[chosen], WEIGHT[chosen]
            batch = Batch(torch.zeros(len(chosen), 1), None, label[chosen], group, weight)
            objective(Passes(torch.zeros(1, len(chosen))), batch)
        assert objective.report() == {"pair_coverage": 4 / 6}


def test_pointwise_reports_no_pairs() -> None:
    objective = Objective(TrainConfig(), rows(LABEL), torch.Generator())
    assert objective.report() == {}
    assert [len(batch) for batch in objective.batches()] == [6]

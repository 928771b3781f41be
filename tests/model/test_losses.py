from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from model.losses import pointwise_loss

LOGITS = torch.tensor([-2.0, 0.3, 1.5, 4.0])
LABELS = torch.tensor([0.0, 1.0, 0.0, 1.0])


def test_pointwise_loss_is_the_log_loss_of_the_sigmoid() -> None:
    expected = log_loss(LABELS.numpy(), LOGITS.sigmoid().double().numpy())
    assert float(pointwise_loss(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-6)


def test_row_weights_count_rows_several_times() -> None:
    times = torch.tensor([1, 3, 0, 2])
    repeated = pointwise_loss(LOGITS.repeat_interleave(times), LABELS.repeat_interleave(times))
    weighted = pointwise_loss(LOGITS, LABELS, times.float())
    torch.testing.assert_close(weighted, repeated)


def test_certain_and_wrong_logits_give_a_finite_loss() -> None:
    loss = pointwise_loss(torch.tensor([500.0, -500.0]), torch.tensor([0.0, 1.0]))
    assert float(loss) == pytest.approx(500)


def test_batch_of_rows_without_weight_teaches_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = pointwise_loss(logits, LABELS, torch.zeros(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_gradient_is_probability_minus_label() -> None:
    logits = LOGITS.clone().requires_grad_()
    pointwise_loss(logits, LABELS).backward()  # type: ignore[no-untyped-call]
    expected = (LOGITS.sigmoid() - LABELS) / 4
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), expected.numpy(), rtol=1e-6)

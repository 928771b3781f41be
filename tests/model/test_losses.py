from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional

from model.losses import pair_logits, pairwise_loss, pointwise_loss, r_drop_loss

LOGITS = torch.tensor([-2.0, 0.3, 1.5, 4.0])
LABELS = torch.tensor([0.0, 1.0, 0.0, 1.0])
POSITIVE, NEGATIVE = torch.tensor([1, 3, 3]), torch.tensor([0, 0, 2])


def passes(rows: int = 50) -> Tensor:
    """Two passes' logits, float64."""
    return 3 * torch.randn(2, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_pointwise_loss_is_the_log_loss_of_the_sigmoid() -> None:
    expected = log_loss(LABELS.numpy(), LOGITS.sigmoid().double().numpy())
    assert float(pointwise_loss(LOGITS, LABELS)) == pytest.approx(expected, rel=1e-6)


def test_row_weights_count_rows_several_times() -> None:
    times = torch.tensor([1, 3, 0, 2])
    repeated = pointwise_loss(LOGITS.repeat_interleave(times), LABELS.repeat_interleave(times))
    weighted = pointwise_loss(LOGITS, LABELS, times.float())
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 3, 0, 2])])
def test_loss_of_two_passes_is_the_mean_of_theirs(weights: Tensor | None) -> None:
    both = torch.stack([LOGITS, LOGITS.flip(0)])
    apart = [pointwise_loss(logits, LABELS, weights) for logits in both]
    torch.testing.assert_close(pointwise_loss(both, LABELS, weights), (apart[0] + apart[1]) / 2)


def test_certain_and_wrong_logits_give_a_finite_loss() -> None:
    loss = pointwise_loss(torch.tensor([500.0, -500.0]), torch.tensor([0.0, 1.0]))
    assert float(loss) == pytest.approx(500)
    pairs = torch.tensor([-500.0, 500.0])
    assert float(pairwise_loss(pairs)) == pytest.approx(250)


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


def test_pairwise_loss_is_the_log_loss_of_the_sigmoid_of_the_difference() -> None:
    differences = [0.3 + 2.0, 4.0 + 2.0, 4.0 - 1.5]
    expected = np.mean([log(1 + np.exp(-difference)) for difference in differences])
    loss = pairwise_loss(pair_logits(LOGITS, POSITIVE, NEGATIVE))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_pair_weights_count_pairs_several_times() -> None:
    times = torch.tensor([2, 1, 3])
    pairs = pair_logits(LOGITS, POSITIVE, NEGATIVE)
    repeated = pairwise_loss(pairs.repeat_interleave(times))
    torch.testing.assert_close(pairwise_loss(pairs, times.float()), repeated)


def test_pair_logits_of_several_passes_never_mix_them() -> None:
    both = torch.stack([LOGITS, 10 * LOGITS])
    pairs = pair_logits(both, POSITIVE, NEGATIVE)
    torch.testing.assert_close(pairs[0], pair_logits(LOGITS, POSITIVE, NEGATIVE))
    torch.testing.assert_close(pairs[1], 10 * pairs[0])


def test_common_shift_of_a_groups_logits_leaves_the_pairwise_loss_alone() -> None:
    one, other = (pair_logits(logits, POSITIVE, NEGATIVE) for logits in (LOGITS, LOGITS + 7))
    torch.testing.assert_close(pairwise_loss(one), pairwise_loss(other))


@pytest.mark.parametrize("weights", [None, torch.empty(0)])
def test_no_pair_gives_a_loss_of_zero_and_a_gradient_of_zero(weights: Tensor | None) -> None:
    logits = LOGITS.expand(2, 4).clone().requires_grad_()
    none = torch.empty(0, dtype=torch.int64)
    pairs = pair_logits(logits, none, none)
    loss = pairwise_loss(pairs, weights) + r_drop_loss(pairs, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_r_drop_is_half_the_two_way_divergence_of_the_two_class_softmax() -> None:
    """torch's own KL between softmax(z, 0) of both passes, averaged over both directions."""
    logits = passes()
    classes = torch.stack([logits, torch.zeros_like(logits)], 2).log_softmax(2)
    one, other = (
        functional.kl_div(classes[a], classes[b], reduction="batchmean", log_target=True)
        for a, b in ((0, 1), (1, 0))
    )
    torch.testing.assert_close(r_drop_loss(logits), (one + other) / 2)


def test_r_drop_is_not_the_softmax_over_the_one_logit() -> None:
    """A softmax over a single logit is 1 whatever the logit, and its divergence always zero."""
    logits = passes()
    alone = logits[:, :, None].log_softmax(2)
    wrong = functional.kl_div(alone[0], alone[1], reduction="batchmean", log_target=True)
    assert float(wrong) == 0
    assert float(r_drop_loss(logits)) > 0.1


def test_r_drop_of_equal_passes_is_zero_and_positive_otherwise() -> None:
    first = passes()[0]
    assert float(r_drop_loss(torch.stack([first, first]))) == 0
    moved = first.clone()
    moved[7] -= 0.01
    assert float(r_drop_loss(torch.stack([first, moved]))) > 0
    assert float(r_drop_loss(torch.stack([moved, first]))) > 0


def test_r_drop_weighs_rows_as_the_loss_does() -> None:
    logits = torch.stack([LOGITS, LOGITS.flip(0)])
    times = torch.tensor([1, 3, 0, 2])
    repeated = r_drop_loss(logits.repeat_interleave(times, 1))
    torch.testing.assert_close(r_drop_loss(logits, times.float()), repeated)


def test_r_drop_is_finite_at_any_logit() -> None:
    logits = torch.tensor([[80.0, -80.0, 80.0, -80.0], [-80.0, 80.0, 80.0, -80.0]])
    logits.requires_grad_()
    loss = r_drop_loss(logits)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx((80 + 80) / 4)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences() -> None:
    logits = passes(4).requires_grad_()
    labels, weights = LABELS.double(), torch.tensor([1.0, 0.5, 2, 1], dtype=torch.float64)

    def pairs(logits: Tensor) -> Tensor:
        return pair_logits(logits, POSITIVE, NEGATIVE)

    for loss in (
        lambda z: pointwise_loss(z, labels, weights),
        lambda z: pairwise_loss(pairs(z), weights[:3]),
        lambda z: r_drop_loss(z, weights),
        lambda z: r_drop_loss(pairs(z), weights[:3]),
    ):
        assert torch.autograd.gradcheck(loss, logits)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import model.optimizer as optimizers
from features.schema import CategoricalField, Schema
from model import tables
from model.config import ModelConfig, TrainConfig
from model.deepfm import DeepFM
from model.optimizer import AdamRates, Optimizer, adagrad_rows, adam_rows

SCHEMA = Schema(
    (
        CategoricalField(name="user", side="context", hash_buckets=50),
        CategoricalField(name="item", hash_buckets=50),
    )
)
LARGE, SMALL = 8, 100  # rows per batch: 16 places are fewer than 102 table rows, 200 are more
# The compiled way is optional: no compiler, no module. The gate asserts that it was built.
ways = pytest.mark.parametrize(
    "is_compiled",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(not tables.IS_COMPILED, reason="_tables was not built")
        ),
    ],
)


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches between the compiled and the plain way."""

    def choose(is_compiled: bool) -> None:
        monkeypatch.setattr(tables, "IS_COMPILED", is_compiled)
        monkeypatch.setattr(optimizers, "IS_COMPILED", is_compiled)

    return choose


def build(**options: Any) -> tuple[DeepFM, Optimizer]:
    torch.manual_seed(0)
    network = DeepFM(SCHEMA, ModelConfig(embedding_dim=4, hidden=(6,)))
    return network, Optimizer(network, TrainConfig(**options))


def step(network: DeepFM, optimizer: Optimizer, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    index = torch.randint(0, 51, (LARGE, 2), generator=random) + torch.tensor([0, 51])
    optimizer.zero_grad()
    (1000 * network(index).square().sum()).backward()
    optimizer.step()


def weights(network: DeepFM) -> list[Tensor]:
    return [value.clone() for value in network.state_dict().values()]


@ways
def test_touched_rows_move_as_by_sparse_adam(
    is_compiled: bool, choose: Callable[[bool], None]
) -> None:
    choose(is_compiled)
    random = torch.Generator().manual_seed(0)
    ours = torch.randn(40, 5, generator=random)
    theirs = torch.nn.Parameter(ours.clone())
    reference = torch.optim.SparseAdam([theirs], lr=0.01)
    moments = torch.zeros(40, 10)
    for number in range(1, 6):
        rows = torch.randperm(40, generator=random)[:7]
        values = torch.randn(7, 5, generator=random)
        theirs.grad = torch.sparse_coo_tensor(
            rows[None], values, ours.shape, check_invariants=False
        )
        reference.step()  # type: ignore[no-untyped-call]
        adam_rows(ours, moments, rows, values, AdamRates(0.01, 0.0, number))
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


@ways
def test_a_step_that_touches_all_rows_is_the_dense_step(
    is_compiled: bool, choose: Callable[[bool], None]
) -> None:
    """The L2 penalty included."""
    choose(is_compiled)
    random = torch.Generator().manual_seed(0)
    ours = torch.randn(30, 3, generator=random)
    theirs = torch.nn.Parameter(ours.clone())
    reference = torch.optim.Adam([theirs], lr=0.01, weight_decay=0.3)
    moments = torch.zeros(30, 6)
    for number in range(1, 6):
        theirs.grad = torch.randn(30, 3, generator=random)
        reference.step()
        adam_rows(ours, moments, torch.arange(30), theirs.grad, AdamRates(0.01, 0.3, number))
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of torch's own Adagrad
@ways
def test_a_slice_of_a_table_moves_as_by_adagrad(
    is_compiled: bool, choose: Callable[[bool], None]
) -> None:
    choose(is_compiled)
    random = torch.Generator().manual_seed(0)
    table = torch.randn(50, 1, generator=random)
    before, ours = table[:20].clone(), table[20:]
    theirs = torch.nn.Parameter(ours.clone())
    reference = torch.optim.Adagrad([theirs], lr=0.2, initial_accumulator_value=1e-8)
    sums = torch.full((30, 1), 1e-8)
    for _ in range(5):
        rows = torch.randperm(30, generator=random)[:7]
        values = torch.randn(7, 1, generator=random)
        theirs.grad = torch.sparse_coo_tensor(
            rows[None], values, ours.shape, check_invariants=False
        )
        reference.step()
        adagrad_rows(ours, sums, rows, values, 0.2)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    assert torch.equal(table[:20], before)


@ways
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_both_ways_train_alike(
    clip: float, is_compiled: bool, choose: Callable[[bool], None]
) -> None:
    """Several steps of the whole network, compiled or not, against plain torch's own optimizers."""
    choose(is_compiled)
    ours, optimizer = build(batch_size=LARGE, gradient_clip=clip)
    theirs, _ = build(batch_size=LARGE)
    tables_ = [theirs.embedding.weight, theirs.linear.weight]
    sparse = torch.optim.SparseAdam(tables_)
    dense = torch.optim.Adam([theirs.bias, *theirs.deep.parameters()])
    for seed in range(4):
        step(ours, optimizer, seed)
        random = torch.Generator().manual_seed(seed)
        index = torch.randint(0, 51, (LARGE, 2), generator=random) + torch.tensor([0, 51])
        theirs.zero_grad()
        (1000 * theirs(index).square().sum()).backward()
        if clip:
            grads = [p.grad.to_dense() for p in theirs.parameters() if p.grad is not None]
            norm = float(torch.stack([grad.norm() for grad in grads]).norm())
            for parameter in theirs.parameters():
                assert parameter.grad is not None
                parameter.grad = parameter.grad * torch.tensor(clip / (norm + 1e-6)).clamp(max=1)
        sparse.step()  # type: ignore[no-untyped-call]
        dense.step()
    for one, other in zip(weights(ours), weights(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_large_tables_leave_untouched_rows_alone_and_small_ones_do_not() -> None:
    """Momentum and the L2 penalty move all rows of a table no larger than a batch."""
    for rows, is_left in ((LARGE, True), (SMALL, False)):
        network, optimizer = build(batch_size=rows, embedding_l2=0.1)
        before = network.embedding.weight.detach().clone()
        step(network, optimizer, 0)
        same = (network.embedding.weight == before).all(1)
        assert bool(same.any()) == is_left
        assert not same.all()


@pytest.mark.parametrize("rows", [LARGE, SMALL])
def test_state_restores_bit_for_bit(rows: int) -> None:
    network, optimizer = build(batch_size=rows, embedding_l2=0.01)
    for seed in range(3):
        step(network, optimizer, seed)
    kept, state = network.state_dict(), optimizer.state_dict()
    resumed, second = build(batch_size=rows, embedding_l2=0.01)
    resumed.load_state_dict(kept)
    second.load_state_dict(state)
    for seed in range(3, 6):
        step(network, optimizer, seed)
        step(resumed, second, seed)
    pairs = zip(weights(network), weights(resumed), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_going_back_shortens_the_next_step() -> None:
    """Adam's first step is as long as its learning rate; large tables and small ones alike."""
    for rows in (LARGE, SMALL):
        network, optimizer = build(batch_size=rows, learning_rate=0.1, learning_rate_decay=0.01)
        before = weights(network)
        optimizer.go_back(network.state_dict())
        step(network, optimizer, 0)
        moved = [(new - old).abs().max() for new, old in zip(weights(network), before, strict=True)]
        assert max(moved).item() == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_going_back_puts_the_judged_weights_into_both_networks(average: float) -> None:
    network, optimizer = build(batch_size=LARGE, weight_average=average)
    step(network, optimizer, 0)
    then = {name: value.clone() for name, value in optimizer.judged.state_dict().items()}
    step(network, optimizer, 1)
    optimizer.go_back(then)
    for one in (network, optimizer.judged):
        assert all(torch.equal(value, then[name]) for name, value in one.state_dict().items())
    step(network, optimizer, 2)
    assert not torch.equal(network.embedding.weight, then["embedding.weight"])


def test_a_lower_learning_rate_is_restored() -> None:
    network, optimizer = build(batch_size=LARGE)
    optimizer.go_back(network.state_dict())
    resumed, second = build(batch_size=LARGE)
    second.load_state_dict(optimizer.state_dict())
    step(network, optimizer, 0)
    step(resumed, second, 0)
    for one, other in zip(weights(network), weights(resumed), strict=True):
        assert torch.equal(one, other)


def test_state_is_a_copy() -> None:
    network, optimizer = build(batch_size=LARGE)
    step(network, optimizer, 0)
    state = optimizer.state_dict()
    kept = state["embedding.moments"].clone()
    step(network, optimizer, 1)
    assert torch.equal(state["embedding.moments"], kept)

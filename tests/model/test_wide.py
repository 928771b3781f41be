from __future__ import annotations

from typing import Any

import torch

from features.cross import CrossField
from features.schema import CategoricalField, Schema
from features.vocabulary import Vocabulary
from model.config import ModelConfig, TrainConfig
from model.deepfm import DeepFM
from model.optimizer import Optimizer

SCHEMA = Schema(
    (
        CategoricalField(name="user", side="context", vocabulary=Vocabulary.of("ab")),
        CategoricalField(name="item", vocabulary=Vocabulary.of("xy")),
    ),
    crosses=(CrossField(name="x", side="candidate", of=("user", "item"), hash_buckets=6),),
)
FIRST = 8  # the cross's, behind two fields of four indices
ROWS = torch.tensor([[2, 6, FIRST + 1], [3, 7, FIRST + 4]])


def stepped(steps: int = 1, **options: Any) -> tuple[DeepFM, list[torch.Tensor]]:
    """The network after some steps on two rows, and the wide gradient of each step."""
    torch.manual_seed(0)
    network = DeepFM(SCHEMA, ModelConfig(embedding_dim=2, hidden=(3,)))
    assert network.wide is not None
    optimizer = Optimizer(network, TrainConfig(**options))
    gradients = []
    for _ in range(steps):
        optimizer.zero_grad()
        network(ROWS).square().sum().backward()
        assert network.wide.weight.grad is not None
        gradients.append(network.wide.weight.grad.to_dense()[:, 0])
        optimizer.step()
    return network, gradients


def start() -> DeepFM:
    torch.manual_seed(0)
    return DeepFM(SCHEMA, ModelConfig(embedding_dim=2, hidden=(3,)))


def wide_of(network: DeepFM) -> torch.Tensor:
    assert network.wide is not None
    return network.wide.weight.detach()[:, 0]


def test_a_wide_weight_moves_by_adagrad_from_an_accumulator_of_a_hundred_millionth() -> None:
    network, gradients = stepped(2, wide_learning_rate=0.3)
    total, expected = torch.full((6,), 1e-8), torch.zeros(6)
    for gradient in gradients:
        total += gradient**2
        expected -= 0.3 * gradient / total.sqrt()
    assert gradients[0][1] != 0
    torch.testing.assert_close(wide_of(network), expected)


def test_a_wide_weight_outside_the_batch_is_left_alone() -> None:
    network, _ = stepped(3, embedding_l2=0.5)
    assert wide_of(network).nonzero().squeeze(1).tolist() == [1, 4]


def test_the_rest_moves_by_adam_with_its_own_learning_rate() -> None:
    network, _ = stepped(learning_rate=0.01, wide_learning_rate=0.3)
    moved = (network.linear.weight - start().linear.weight).detach()[:, 0]
    torch.testing.assert_close(moved[[2, 6, 3, 7]].abs(), torch.full((4,), 0.01), rtol=1e-3, atol=0)


def test_the_penalty_pulls_on_the_tables_and_not_on_wide_weights() -> None:
    free, pulled = stepped(embedding_l2=0.0)[0], stepped(embedding_l2=10.0)[0]
    assert not torch.equal(free.embedding.weight, pulled.embedding.weight)
    assert torch.equal(wide_of(free), wide_of(pulled))


def test_clipping_leaves_wide_weights_alone() -> None:
    free, clipped = stepped(gradient_clip=0.0)[0], stepped(gradient_clip=1e-9)[0]
    assert not torch.equal(free.bias, clipped.bias)
    assert torch.equal(wide_of(free), wide_of(clipped))

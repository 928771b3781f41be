from __future__ import annotations

import pytest
import torch

from features.schema import CategoricalField, Schema
from model.average import WeightAverage
from model.config import ModelConfig, TrainConfig
from model.deepfm import DeepFM
from model.optimizer import Optimizer

SCHEMA = Schema((CategoricalField(name="item", hash_buckets=5),))
INDEX = torch.tensor([[1], [2], [5], [1]])


def small() -> DeepFM:
    torch.manual_seed(0)
    return DeepFM(SCHEMA, ModelConfig(embedding_dim=2, hidden=(3,), batch_norm=True))


def train(network: DeepFM, optimizer: Optimizer, steps: int) -> list[torch.Tensor]:
    """The bias after each step."""
    seen = []
    for _ in range(steps):
        network.train()
        optimizer.zero_grad()
        (network(INDEX) - 1).square().sum().backward()
        optimizer.step()
        seen.append(network.bias.detach().clone())
    return seen


def test_the_average_is_the_weighted_mean_of_all_steps() -> None:
    network = small()
    average = WeightAverage(network, 0.5)
    expected = torch.zeros(())
    for step in range(1, 30):
        with torch.no_grad():
            network.bias.fill_(float(step))
        average.update()
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step
    torch.testing.assert_close(average.network.bias.detach(), expected)


def test_batch_norm_counts_and_statistics_follow() -> None:
    network = small()
    optimizer = Optimizer(network, TrainConfig(weight_average=0.9))
    train(network, optimizer, 3)
    norm, averaged = network.state_dict(), optimizer.judged.state_dict()
    assert averaged["deep.1.num_batches_tracked"] == norm["deep.1.num_batches_tracked"] == 3
    means = averaged["deep.1.running_mean"], norm["deep.1.running_mean"], torch.zeros(3)
    assert not any(torch.equal(means[0], other) for other in means[1:])


def test_without_an_average_the_network_itself_is_judged() -> None:
    network = small()
    assert Optimizer(network, TrainConfig()).judged is network


def test_averaging_leaves_the_weights_in_training_alone() -> None:
    plain, averaged = small(), small()
    one = train(plain, Optimizer(plain, TrainConfig()), 4)
    two = train(averaged, Optimizer(averaged, TrainConfig(weight_average=0.9)), 4)
    assert one == two


def test_the_average_is_restored_with_the_optimizer() -> None:
    network = small()
    optimizer = Optimizer(network, TrainConfig(weight_average=0.9))
    train(network, optimizer, 3)
    resumed = small()
    resumed.load_state_dict(network.state_dict())
    second = Optimizer(resumed, TrainConfig(weight_average=0.9))
    second.load_state_dict(optimizer.state_dict())
    train(network, optimizer, 2)
    train(resumed, second, 2)
    for one, other in zip(
        optimizer.judged.state_dict().values(), second.judged.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_missing_part_of_the_state_is_refused() -> None:
    with pytest.raises(KeyError, match="steps"):
        WeightAverage(small(), 0.9).load_state_dict({})

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from features.cross import CrossField
from features.schema import CategoricalField, Schema, ValueField
from features.vocabulary import Vocabulary
from model.config import ModelConfig
from model.deepfm import DeepFM, dense_layers, slot_fields

LETTERS = Vocabulary.of("abc")
# Fused indices: user 0-4, mass 5-6, item 7-11, tags 12-16.
SCHEMA = Schema(
    (
        CategoricalField(name="user", side="context", vocabulary=LETTERS),
        ValueField(name="mass", minimum=0.0, maximum=9.0),
        CategoricalField(name="item", vocabulary=LETTERS),
        CategoricalField(name="tags", vocabulary=LETTERS, multi=True, max_values=3),
    )
)
PLAIN = Schema(
    (
        CategoricalField(name="user", side="context", vocabulary=LETTERS),
        CategoricalField(name="item", vocabulary=LETTERS),
    )
)


def build(schema: Schema, hidden: tuple[int, ...] = (4, 3), dim: int = 3) -> DeepFM:
    """A network with every weight away from zero, in evaluation mode."""
    torch.manual_seed(0)
    network = DeepFM(schema, ModelConfig(embedding_dim=dim, hidden=hidden))
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.5)
    return network.eval()


def pairs(vectors: list[Tensor]) -> Tensor:
    """Sum of <v_i, v_j> over i < j, pair by pair."""
    return sum((a @ b for a, b in combinations(vectors, 2)), torch.zeros(()))


def by_hand(network: DeepFM, fields: list[list[tuple[int, float]]]) -> Tensor:
    """bias + linear + FM pairs + MLP of one row, each field as (index, weight) of its slots."""
    table, linear = network.embedding.weight, network.linear.weight[:, 0]
    vectors = [
        sum((x * table[i] for i, x in field), torch.zeros(table.shape[1])) for field in fields
    ]
    first = sum((x * linear[i] for field in fields for i, x in field), torch.zeros(()))
    hidden = torch.cat(vectors)
    dense = [layer for layer in network.deep if isinstance(layer, torch.nn.Linear)]
    for layer in dense[:-1]:
        hidden = (layer.weight @ hidden + layer.bias).clamp(min=0)
    deep = (dense[-1].weight @ hidden + dense[-1].bias)[0]
    return network.bias + first + pairs(vectors) + deep


@pytest.mark.parametrize("share", [1 / 2, 1.0], ids=["mean", "sum"])
def test_logit_is_the_papers_formula(share: float) -> None:
    """A value field multiplies all three terms; a multi field is pooled before FM and MLP."""
    network = build(SCHEMA)
    index = torch.tensor([[3, 6, 9, 14, 15, 12]])
    weight = torch.tensor([[1, 2.5, 1, share, share, 0]])
    fields = [[(3, 1.0)], [(6, 2.5)], [(9, 1.0)], [(14, share), (15, share)]]
    torch.testing.assert_close(network(index, weight)[0], by_hand(network, fields))


def test_plain_logit_needs_no_weights() -> None:
    network = build(PLAIN)
    logit = network(torch.tensor([[3, 8]]))
    torch.testing.assert_close(logit[0], by_hand(network, [[(3, 1.0)], [(8, 1.0)]]))
    torch.testing.assert_close(logit, network(torch.tensor([[3, 8]]), torch.ones(1, 2)))


def test_slots_with_weight_zero_contribute_nothing() -> None:
    """Whatever index a `zero` policy or padding writes, and as if the field's vector were 0."""
    network = build(SCHEMA)
    weight = torch.tensor([[0.0, 2, 1, 1, 0, 0]])
    logits = [
        network(torch.tensor([[user, 6, 9, 14, padding, padding]]), weight)
        for user, padding in ((0, 12), (3, 16))
    ]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)
    expected = by_hand(network, [[], [(6, 2.0)], [(9, 1.0)], [(14, 1.0)]])
    torch.testing.assert_close(logits[0][0], expected)


def test_value_changes_first_and_second_order_and_the_deep_input() -> None:
    network = build(SCHEMA)
    index = torch.tensor([[3, 6, 9, 14, 12, 12]])
    one, three = torch.tensor([[1.0, 1, 1, 1, 0, 0]]), torch.tensor([[1.0, 3, 1, 1, 0, 0]])
    tripled, base = network.embed(index, three)
    torch.testing.assert_close(tripled[0, 1], 3 * network.embedding.weight[6])
    others = tripled[0, [0, 2, 3]].sum(0)
    rise = 2 * network.linear.weight[6, 0] + 2 * network.embedding.weight[6] @ others
    torch.testing.assert_close((base - network.embed(index, one)[1])[0], rise)


def test_without_hidden_layers_it_is_a_factorisation_machine() -> None:
    network = build(PLAIN, hidden=())
    table, linear = network.embedding.weight, network.linear.weight[:, 0]
    expected = network.bias + linear[3] + linear[8] + table[3] @ table[8]
    torch.testing.assert_close(network(torch.tensor([[3, 8]]))[0], expected)


def test_slots_of_a_multi_field_share_one_vector() -> None:
    assert list(slot_fields(SCHEMA)) == [0, 1, 2, 3, 3, 3]


def test_field_without_embedding_enters_the_linear_term_alone() -> None:
    schema = Schema(
        (
            CategoricalField(name="wide", vocabulary=LETTERS, embedding=False),
            CategoricalField(name="item", vocabulary=LETTERS),
        )
    )
    network = build(schema)
    assert list(slot_fields(schema)) == [0, -1]
    assert len(network.embedding.weight) == 5
    a, b = network(torch.tensor([[3, 6]])), network(torch.tensor([[3, 8]]))
    assert network.wide is not None
    torch.testing.assert_close(b - a, network.wide.weight[3] - network.wide.weight[1])


def test_a_cross_adds_its_weight_once_and_with_an_embedding_its_vector_too() -> None:
    letters = [
        CategoricalField(name="user", side="context", vocabulary=LETTERS),
        CategoricalField(name="item", vocabulary=LETTERS),
    ]
    crosses = [
        CrossField(
            name=name, side="candidate", of=("user", "item"), hash_buckets=4, embedding=embedding
        )
        for name, embedding in (("linear", False), ("embedded", True))
    ]
    schema = Schema(tuple(letters), crosses=tuple(crosses))
    network = build(schema, hidden=())
    assert network.wide is not None
    nn.init.normal_(network.wide.weight)
    index = torch.tensor([[3, 8, 12, 17]])  # user, item, embedded, linear
    assert schema.ranges["embedded"].start == 10
    assert schema.ranges["linear"].start == 14
    vectors, linear = network.embedding.weight[[3, 8, 12]], network.linear.weight[[3, 8, 12]].sum()
    pairs = vectors[0] @ vectors[1] + vectors[0] @ vectors[2] + vectors[1] @ vectors[2]
    expected = network.bias + linear + network.wide.weight[3, 0] + pairs
    torch.testing.assert_close(network(index)[0], expected)


@pytest.mark.parametrize(("batch_norm", "dropout"), [(False, 0.0), (True, 0.0), (True, 0.3)])
def test_dense_layers_hold_what_the_config_asks(batch_norm: bool, dropout: float) -> None:
    config = ModelConfig(hidden=(5, 4), batch_norm=batch_norm, dropout=dropout)
    names = [type(layer).__name__ for layer in dense_layers(6, config)]
    block = ["Linear", *["BatchNorm1d"] * batch_norm, "ReLU", *["Dropout"] * (dropout > 0)]
    assert names == [*block, *block, "Linear"]


def test_embeddings_start_at_the_given_deviation_and_linear_weights_at_zero() -> None:
    torch.manual_seed(0)
    schema = Schema((CategoricalField(name="item", hash_buckets=2000),))
    network = DeepFM(schema, ModelConfig(embedding_dim=16, hidden=(), init_std=0.03))
    assert float(network.embedding.weight.detach().std()) == pytest.approx(0.03, rel=0.05)
    assert not network.linear.weight.any()


@pytest.mark.parametrize("hidden", [(), (5, 4)])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_two_passes_are_the_doubled_batch(
    hidden: tuple[int, ...], batch_norm: bool, dropout: float
) -> None:
    """Logits, and through them every gradient, as if the rows stood in the batch twice."""
    config = ModelConfig(embedding_dim=3, hidden=hidden, batch_norm=batch_norm, dropout=dropout)
    torch.manual_seed(0)
    # In float64: behind batch norm a bias has no gradient but rounding.
    network = DeepFM(PLAIN, config).double().train()
    index = torch.tensor([[3, 8], [4, 7], [2, 6], [3, 6]])
    seen = []
    for rows, passes in ((index, 2), (torch.cat([index, index]), 1)):
        torch.manual_seed(1)
        network.zero_grad()
        logits = network(rows, None, passes)
        (logits * torch.arange(1, 9)).sum().backward()
        grads = [p.grad.to_dense() for p in network.parameters() if p.grad is not None]
        seen.append([logits.detach(), *grads])
    for shared, doubled in zip(*seen, strict=True):
        torch.testing.assert_close(shared, doubled)


def test_passes_differ_by_dropout_alone() -> None:
    config = ModelConfig(embedding_dim=3, hidden=(5, 4), dropout=0.5)
    network = DeepFM(PLAIN, config)
    index = torch.tensor([[3, 8], [4, 7], [2, 6], [3, 6]])
    first, second = network.train()(index, None, 2).view(2, -1)
    assert not torch.equal(first, second)
    first, second = network.eval()(index, None, 2).view(2, -1)
    assert torch.equal(first, second)

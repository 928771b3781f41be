from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.cross import CrossField
from features.crosser import Crosser
from features.encode import Encoded, Encoder
from features.schema import BucketField, CategoricalField, Schema
from features.vocabulary import Vocabulary
from model.config import configs
from model.data import read_split
from model.deepfm import DeepFM
from model.reserved import ReservedSampling
from model.train import fit
from tests.model.small import small_columns, write_small

ROWS = 20_000
RATE = 0.01
SCHEMA = Schema(
    (
        BucketField(name="age", side="context", boundaries=(30.0,)),  # 0 missing, then 1 and 2
        CategoricalField(name="item", vocabulary=Vocabulary.of("ab")),  # 3 missing, 4 unknown
        CategoricalField(name="tags", vocabulary=Vocabulary.of("xy"), multi=True, max_values=2),
        CategoricalField(name="kind", vocabulary=Vocabulary.of("k"), missing="zero"),
        CategoricalField(name="shop", hash_buckets=3, missing="reject"),
    )
)
# A full row: age, item, two tags, kind, shop.
ROW = [1, 5, 9, 10, 12, 13]


def replaced(counts: dict[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Index and weight after replacement, of rows that hold nothing reserved."""
    held = torch.zeros(SCHEMA.size, dtype=torch.int64)
    for place, count in counts.items():
        held[place] = count
    sampling = ReservedSampling(SCHEMA, held, ROWS, RATE, torch.Generator().manual_seed(0))
    index, weight = torch.tensor([ROW]).repeat(ROWS, 1), torch.ones(ROWS, len(ROW))
    sampling.replace(index, weight)
    return index, weight


def share(index: torch.Tensor, slot: int, value: int) -> float:
    return float((index[:, slot] == value).float().mean())


@pytest.mark.parametrize(("slot", "reserved"), [(0, 0), (1, 3), (1, 4), (2, 7), (2, 8)])
def test_index_that_the_log_never_holds_gets_the_given_share(slot: int, reserved: int) -> None:
    index, _ = replaced({})
    assert share(index, slot, reserved) == pytest.approx(RATE, rel=0.2)


def test_log_that_holds_enough_is_left_alone() -> None:
    index, weight = replaced(dict.fromkeys((0, 3, 4, 7, 8, 11), ROWS // 50))
    assert (index == torch.tensor(ROW)).all()
    assert (weight == 1).all()


def test_share_that_the_log_holds_is_topped_up() -> None:
    index, _ = replaced({0: ROWS * 6 // 1000})
    assert share(index, 0, 0) == pytest.approx(0.004, rel=0.3)


def test_replaced_list_loses_its_other_values() -> None:
    index, weight = replaced({})
    rows = (index[:, 2] == 7) | (index[:, 2] == 8)
    assert (weight[rows, 2] == 1).all()
    assert (weight[rows, 3] == 0).all()


def test_fields_without_a_reserved_index_are_left_alone() -> None:
    """`zero` and `reject` have no missing index, and a hashed field knows no unknown."""
    index, _ = replaced({})
    assert set(index[:, 5].tolist()) == {13}
    assert 11 in index[:, 4]  # kind's unknown, its first index
    assert set(index[:, 4].tolist()) == {11, 12}


def test_reserved_rows_that_the_log_never_holds_are_trained(tmp_path: Path) -> None:
    """A missing and an unknown item come to score near what an average item scores."""
    spec = write_small(tmp_path, small_columns(2000))
    split = read_split(spec)
    model, train = configs(spec)
    torch.manual_seed(0)
    network = DeepFM(split.schema, model)
    initial = network.embedding.weight.detach().clone()
    counts = split.train.counts(split.schema.size)
    reserved = [split.schema.ranges["age"].start, *split.schema.ranges["item"][:2]]
    assert not counts[reserved].any()
    train = replace(train, batch_size=128, epochs=12, patience=12, learning_rate=0.03)
    train = replace(train, reserved_rate=0.02, learning_rate_decay=1.0)
    fit(network, split, train, counts)
    assert (network.embedding.weight.detach()[reserved] != initial[reserved]).all()

    context = Encoder(split.schema, "context", split.table).encode({"age": np.array([40.0])}, 1)
    item = Encoder(split.schema, "candidate", split.table).encode({}, 1)
    missing, unknown = split.schema.ranges["item"][:2]
    observed = float(split.train.label.mean())
    assert item.index[0, 0] == missing
    for index in (missing, unknown):
        row = torch.tensor([[int(context.index[0, 0]), index]])
        score = float(torch.sigmoid(network(row)).detach())
        assert score == pytest.approx(observed, abs=0.15)


def test_replacement_is_repeated_by_the_generators_seed() -> None:
    assert torch.equal(replaced({})[0], replaced({})[0])


def test_crosses_of_a_replaced_value_are_those_of_the_replacement() -> None:
    """Online a missing part moves its crosses; in training it must as well."""
    fields = SCHEMA.fields[:2]
    cross = CrossField(name="x", side="candidate", of=("age", "item"), hash_buckets=1 << 20)
    schema = Schema(fields, crosses=(cross,))
    crosser = Crosser(schema)
    row = np.array([[1, 5, 0]])
    crosser.fill(Encoded(row[:, :1], None), Encoded(row[:, 1:], None))
    index = torch.from_numpy(row).to(torch.int32).repeat(ROWS, 1)
    counts = torch.zeros(schema.size, dtype=torch.int64)
    sampling = ReservedSampling(schema, counts, ROWS, RATE, torch.Generator().manual_seed(0))
    sampling.replace(index, None)
    expected = index.numpy().astype(np.int64)
    crosser.fill(Encoded(expected[:, :1], None), Encoded(expected[:, 1:], None))
    assert index.dtype == torch.int32
    np.testing.assert_array_equal(index.numpy(), expected)
    assert len(np.unique(expected[:, 2])) >= 4  # untouched, age missing, item missing, unknown

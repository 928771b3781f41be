from __future__ import annotations

from typing import Any

import pytest

from features.errors import ConfigError
from features.spec import spec_from_json
from model.config import ModelConfig, TrainConfig, configs

DOCUMENT: dict[str, Any] = {
    "name": "small",
    "data": {"train": "log.parquet", "label": "clicked"},
    "fields": {"item": {"type": "categorical"}},
}


def read(**tables: dict[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    return configs(spec_from_json(DOCUMENT | tables))


def test_tables_left_out_mean_the_defaults() -> None:
    assert read() == (ModelConfig(), TrainConfig())


def test_embeddings_start_at_a_hundredth() -> None:
    assert ModelConfig().init_std == 0.01


def test_written_keys_replace_defaults() -> None:
    model, train = read(model={"hidden": [8, 4], "dropout": 0.5}, train={"seed": 7, "epochs": 1})
    assert (model.hidden, model.dropout, model.embedding_dim) == ((8, 4), 0.5, 16)
    assert (train.seed, train.epochs, train.batch_size) == (7, 1, 4096)


def test_no_hidden_layers_are_allowed() -> None:
    assert read(model={"hidden": []})[0].hidden == ()


@pytest.mark.parametrize(
    ("table", "key", "nearest"),
    [("model", "droput", "dropout"), ("train", "learning_rat", "learning_rate")],
)
def test_unknown_key_is_refused_with_the_nearest_valid_one(
    table: str, key: str, nearest: str
) -> None:
    with pytest.raises(ConfigError, match=f"'{table}.{key}'.*'{nearest}'"):
        read(**{table: {key: 0.1}})


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("model", "embedding_dim", "16"),
        ("model", "embedding_dim", 1.5),
        ("model", "hidden", 400),
        ("model", "hidden", ["wide"]),
        ("model", "batch_norm", 1),
        ("train", "learning_rate", "fast"),
        ("train", "epochs", True),
        ("train", "loss", "hinge"),
        ("train", "optimizer", "sgd"),
    ],
)
def test_wrong_type_is_refused_with_its_key(table: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{table}\.{key}"):
        read(**{table: {key: value}})


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("model", "embedding_dim", 0),
        ("train", "seed", -1),
        ("train", "seed", 2**64),
        ("model", "hidden", [4, 0]),
        ("model", "dropout", 1.0),
        ("model", "init_std", 0.0),
        ("train", "pairwise_weight", 0.0),
        ("train", "pairs_per_positive", 0),
        ("train", "group_rows", 1),
        ("train", "r_drop", -0.1),
        ("train", "learning_rate", 0.0),
        ("train", "learning_rate_decay", 0.0),
        ("train", "weight_average", 1.0),
        ("train", "learning_rate_decay", 1.5),
        ("train", "batch_size", 1),
        ("train", "epochs", 0),
        ("train", "patience", 0),
        ("train", "embedding_l2", -1.0),
        ("train", "gradient_clip", -1.0),
        ("train", "reserved_rate", 0.5),
    ],
)
def test_value_out_of_range_is_refused_with_its_key(table: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key.removesuffix("s")):
        read(**{table: {key: value}})


def test_integer_stands_for_a_number() -> None:
    assert read(train={"learning_rate": 1})[1].learning_rate == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "key", ["learning_rate", "embedding_l2", "gradient_clip", "pairwise_weight", "r_drop"]
)
def test_numbers_that_are_not_finite_are_refused(key: str, number: float) -> None:
    """TOML can write both."""
    with pytest.raises(ConfigError, match=key):
        read(train={key: number})


@pytest.mark.parametrize("loss", ["pairwise", "joint"])
def test_pairs_without_a_group_column_are_refused(loss: str) -> None:
    with pytest.raises(ConfigError, match=rf'^train.loss = "{loss}" needs groups.*data.group$'):
        read(train={"loss": loss})
    data = DOCUMENT["data"] | {"group": "request"}
    assert read(data=data, train={"loss": loss})[1].loss == loss


@pytest.mark.parametrize("model", [{"dropout": 0.0}, {"dropout": 0.5, "hidden": []}])
def test_r_drop_without_dropout_is_refused(model: dict[str, Any]) -> None:
    """Both passes would be equal: twice the time for a term of zero."""
    with pytest.raises(ConfigError, match=r"^train.r_drop compares two passes"):
        read(model=model, train={"r_drop": 1.0})
    assert read(model={"dropout": 0.5}, train={"r_drop": 1.0})[1].r_drop == 1.0

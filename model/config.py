"""The `[model]` and `[train]` tables of a spec as frozen dataclasses, ranges checked."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from features.errors import ConfigError
from features.spec import Spec, section


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network.

    Args:
        embedding_dim: length of every embedding.
        hidden: widths of the dense layers; none makes a plain factorisation machine.
        dropout: share of each dense layer's outputs zeroed in training.
        batch_norm: normalise each dense layer's outputs before the activation.
        init_std: standard deviation of the initial embeddings. 0.01 lets the interactions start;
            1e-4 before batch norm was measured to cost five epochs.
    """

    embedding_dim: int = 16
    hidden: tuple[int, ...] = (400, 400, 400)
    dropout: float = 0.0
    batch_norm: bool = False
    init_std: float = 0.01

    def __post_init__(self) -> None:
        _require(self.embedding_dim >= 1, "embedding_dim must be at least 1")
        _require(all(width >= 1 for width in self.hidden), "hidden widths must be at least 1")
        _require(0 <= self.dropout < 1, "dropout must lie in [0, 1)")
        _require(0 < self.init_std < inf, "init_std must be a number above 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the network learns.

    Args:
        loss: `pointwise`, the log loss of rows; `pairwise`, that of pairs of a clicked and an
            unclicked row of one group; `joint`, the sum of both.
        pairwise_weight: joint = pointwise + pairwise_weight * pairwise.
        pairs_per_positive: most unclicked rows of its group drawn per clicked row.
        group_rows: most rows of one group that stay together in a batch; larger groups are cut at
            random, anew every epoch.
        r_drop: weight of the divergence between two passes with independent dropout; 0: one pass.
        batch_size: rows per step; with pairs the most rows of several groups.
        epochs: at most so many passes over the training rows.
        patience: stop after so many epochs in a row without a better validation AUC (GAUC after
            the pairwise loss, which does not order rows of different groups).
        learning_rate_decay: what the learning rate is multiplied by after each epoch without a
            better validation AUC, when training goes on from the best weights; 1 keeps it.
        weight_average: what a moving average of all weights keeps of itself at a step; the average
            is what is judged and kept. 0 judges the weights themselves.
        wide_learning_rate: of the linear weights of crosses without an embedding.
        embedding_l2: strength l of the penalty 0.5 * l * ||W||^2 on the whole embedding and
            linear tables but for the wide weights, its gradient l * W added at every step (as
            FuxiCTR's `embedding_regularizer`); in a table of more rows than a batch has slots, only
            to the rows of the batch.
        gradient_clip: largest norm of the whole gradient, the wide weights' left out; 0 switches
            clipping off.
        reserved_rate: share of a field's training values replaced by missing, and by unknown,
            where the log itself holds fewer, so that both reserved rows are learned.
        seed: of initial weights, shuffling, dropout and replacement.
    """

    loss: Literal["pointwise", "pairwise", "joint"] = "pointwise"
    pairwise_weight: float = 1.0
    pairs_per_positive: int = 4
    group_rows: int = 64
    r_drop: float = 0.0
    optimizer: Literal["adam"] = "adam"
    learning_rate: float = 1e-3
    learning_rate_decay: float = 0.1
    weight_average: float = 0.0
    wide_learning_rate: float = 0.2
    batch_size: int = 4096
    epochs: int = 20
    patience: int = 2
    embedding_l2: float = 0.0
    gradient_clip: float = 0.0
    reserved_rate: float = 0.002
    seed: int = 0

    def __post_init__(self) -> None:
        _require(0 < self.pairwise_weight < inf, "pairwise_weight must be a number above 0")
        _require(self.pairs_per_positive >= 1, "pairs_per_positive must be at least 1")
        _require(self.group_rows >= 2, "group_rows must be at least 2")
        _require(0 <= self.r_drop < inf, "r_drop must be a number from 0")
        _require(0 < self.learning_rate < inf, "learning_rate must be a number above 0")
        _require(0 < self.wide_learning_rate < inf, "wide_learning_rate must be a number above 0")
        _require(0 < self.learning_rate_decay <= 1, "learning_rate_decay must lie in (0, 1]")
        _require(0 <= self.weight_average < 1, "weight_average must lie in [0, 1)")
        _require(self.batch_size >= 2, "batch_size must be at least 2")
        _require(self.epochs >= 1, "epochs must be at least 1")
        _require(self.patience >= 1, "patience must be at least 1")
        _require(0 <= self.embedding_l2 < inf, "embedding_l2 must be a number from 0")
        _require(0 <= self.gradient_clip < inf, "gradient_clip must be a number from 0")
        _require(0 <= self.reserved_rate < 0.5, "reserved_rate must lie in [0, 0.5)")
        _require(0 <= self.seed < 2**64, "seed must lie in [0, 2^64)")


def configs(spec: Spec) -> tuple[ModelConfig, TrainConfig]:
    """The two tables of a spec.

    Raises:
        ConfigError: a key is unknown, of the wrong type or out of range, or asks for what the rest
            of the spec does not have.
    """
    model = section(ModelConfig, spec.model, "model")
    train = section(TrainConfig, spec.train, "train")
    if train.loss != "pointwise" and spec.data.group is None:
        raise ConfigError(
            f'train.loss = "{train.loss}" needs groups to draw pairs from: '
            "name their column in data.group"
        )
    if train.r_drop and not (model.dropout and model.hidden):
        raise ConfigError(
            "train.r_drop compares two passes that only dropout makes different: "
            "set model.dropout above 0 with hidden layers, or train.r_drop = 0"
        )
    return model, train


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)

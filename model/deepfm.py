"""DeepFM = linear term + FM term + deep term, on one fused embedding table.

Source: Guo et al. 2017, "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction".
A batch is one integer matrix: the context slots, then the candidate slots, each side in the order
of `Schema.members`. Weights multiply first and second order alike, and a multi field's slots are
summed before the FM, so that every field brings exactly one vector. Indices without an embedding
have a linear weight alone: the wide part of Cheng et al. 2016, "Wide & Deep Learning for
Recommender Systems". Those weights lie in a table of their own, because they are learned apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from features.schema import SIDES, Schema
from model.config import ModelConfig


class DeepFM(nn.Module):
    """The network; gives the logit, and leaves sigmoid and calibration to loss and export.

    Args:
        schema: the fields.
        config: the sizes.
    """

    slots: Tensor
    field: Tensor
    wide_slots: Tensor

    def __init__(self, schema: Schema, config: ModelConfig) -> None:
        super().__init__()
        slots = slot_fields(schema)
        embedded = [(slot, field) for slot, field in enumerate(slots) if field >= 0]
        self.fields = max(slots) + 1
        self.embedding = nn.Embedding(schema.embedding_size, config.embedding_dim)
        self.linear = nn.Embedding(schema.embedding_size, 1)
        wide_size = schema.size - schema.embedding_size
        self.wide = nn.Embedding(wide_size, 1, sparse=True) if wide_size else None
        self.bias = nn.Parameter(torch.zeros(()))
        self.deep = dense_layers(self.fields * config.embedding_dim, config)
        self.is_pooled = len(embedded) > self.fields
        self.register_buffer("slots", torch.tensor([s for s, _ in embedded]), persistent=False)
        self.register_buffer("field", torch.tensor([f for _, f in embedded]), persistent=False)
        wide = [slot for slot, field in enumerate(slots) if field < 0]
        self.register_buffer("wide_slots", torch.tensor(wide, dtype=torch.int64), persistent=False)
        nn.init.normal_(self.embedding.weight, std=config.init_std)
        nn.init.zeros_(self.linear.weight)
        if self.wide is not None:
            nn.init.zeros_(self.wide.weight)

    def forward(self, index: Tensor, weight: Tensor | None = None, passes: int = 1) -> Tensor:
        """Logits `[passes * rows]` float32, pass after pass.

        Args:
            index: `[rows, slots]` int32 or int64.
            weight: `[rows, slots]` float32; None for all 1.
            passes: how often the rows go through, each time with dropout of its own.
        """
        wide: Tensor | float = 0.0
        if self.wide is not None:
            wide = self.wide_term(index, weight)
            index = index[:, self.slots]
            weight = None if weight is None else weight[:, self.slots]
        pooled = self.pooled_embeddings(index, weight)  # [rows, fields, dim]
        logit: Tensor = self.linear_term(index, weight) + wide + fm_term(pooled)  # [rows]
        if passes > 1:
            logit = logit.repeat(passes)
        if len(self.deep):
            logit = logit + self.deep_term(pooled.flatten(1), passes)
        return logit

    def deep_term(self, hidden: Tensor, passes: int) -> Tensor:
        """`[passes * rows]` of `[rows, fields * dim]`.

        Up to the first dropout all passes are alike, batch norm included (the same rows twice have
        the same mean and variance): that part is computed once.
        """
        if passes > 1:
            shared = first_dropout(self.deep)
            hidden = self.deep[:shared](hidden).repeat(passes, 1)
            return self.deep[shared:](hidden).squeeze(1)  # type: ignore[no-any-return]
        return self.deep(hidden).squeeze(1)  # type: ignore[no-any-return]

    def linear_term(self, index: Tensor, weight: Tensor | None) -> Tensor:
        """First order of the slots with an embedding: bias + sum of w_i x_i, `[rows]`."""
        return self.bias + _weighted_sum(self.linear, index, weight)

    def wide_term(self, index: Tensor, weight: Tensor | None) -> Tensor:
        """First order of the slots without an embedding, of a batch of all slots: `[rows]`."""
        assert self.wide is not None
        own = index[:, self.wide_slots] - self.embedding.num_embeddings
        return _weighted_sum(self.wide, own, None if weight is None else weight[:, self.wide_slots])

    def pooled_embeddings(self, index: Tensor, weight: Tensor | None) -> Tensor:
        """One vector per field, sum of v_i x_i over its slots: `[rows, fields, dim]`."""
        embedded: Tensor = self.embedding(index)  # [rows, embedded slots, dim]
        if weight is not None:
            embedded = embedded * weight[:, :, None]
        if not self.is_pooled:
            return embedded
        pooled = embedded.new_zeros(len(index), self.fields, embedded.shape[2])
        return pooled.index_add(1, self.field, embedded)


def _weighted_sum(table: nn.Embedding, index: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over the slots of a table's one column: `[rows]`."""
    linear: Tensor = table(index).squeeze(2)  # [rows, slots]
    return (linear if weight is None else linear * weight).sum(1)


def fm_term(pooled: Tensor) -> Tensor:
    """Second order of `[rows, fields, dim]`: the sum over pairs i < j of <v_i, v_j>, `[rows]`.

    Source: Rendle 2010, lemma 3.1: half of (square of the sum - sum of the squares).
    """
    total = pooled.sum(1)  # [rows, dim]
    return 0.5 * ((total * total).sum(1) - (pooled * pooled).sum((1, 2)))


def dense_layers(width: int, config: ModelConfig) -> nn.Sequential:
    """Linear, batch norm, ReLU and dropout per hidden width, then one output; maybe nothing."""
    layers: list[nn.Module] = []
    for out in config.hidden:
        layers.append(nn.Linear(width, out))
        if config.batch_norm:
            layers.append(nn.BatchNorm1d(out))
        layers.append(nn.ReLU())
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        width = out
    if layers:
        layers.append(nn.Linear(width, 1))
    return nn.Sequential(*layers)


def first_dropout(layers: nn.Sequential) -> int:
    """Number of the first dropout layer; the number of layers when there is none."""
    is_dropout = [isinstance(layer, nn.Dropout) for layer in layers]
    return is_dropout.index(True) if any(is_dropout) else len(layers)


def slot_fields(schema: Schema) -> Sequence[int]:
    """For each slot of the batch, which vector of the deep term it adds to; -1 for none."""
    fields, place = [], 0
    for side in SIDES:
        for member in schema.members(side):
            fields += [place if member.embedding else -1] * member.slots
            place += int(member.embedding)
    return fields

"""DeepFM = linear term + FM term + deep term, on one fused embedding table.

Source: Guo et al. 2017, "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction".
A batch is one integer matrix: the context slots, then the candidate slots, each side in the order
of `Schema.side`. Weights multiply first and second order alike, and a multi field's slots are
summed before the FM, so that every field brings exactly one vector.
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

    def __init__(self, schema: Schema, config: ModelConfig) -> None:
        super().__init__()
        slots = slot_fields(schema)
        embedded = [(slot, field) for slot, field in enumerate(slots) if field >= 0]
        self.fields = max(slots) + 1
        self.embedding = nn.Embedding(schema.embedding_size, config.embedding_dim)
        self.linear = nn.Embedding(schema.size, 1)
        self.bias = nn.Parameter(torch.zeros(()))
        self.deep = dense_layers(self.fields * config.embedding_dim, config)
        self.is_plain = [field for _, field in embedded] == list(range(len(slots)))
        self.register_buffer("slots", torch.tensor([s for s, _ in embedded]), persistent=False)
        self.register_buffer("field", torch.tensor([f for _, f in embedded]), persistent=False)
        nn.init.normal_(self.embedding.weight, std=config.init_std)
        nn.init.zeros_(self.linear.weight)

    def forward(self, index: Tensor, weight: Tensor | None = None) -> Tensor:
        """Logits `[rows]` float32.

        Args:
            index: `[rows, slots]` int32 or int64.
            weight: `[rows, slots]` float32; None for all 1.
        """
        pooled, base = self.embed(index, weight)
        return base + self.deep_term(pooled)

    def embed(self, index: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One vector per field `[rows, fields, dim]`, and linear plus FM term `[rows]`.

        The look-up without the deep term, so that two dropout passes may share it.
        """
        pooled = self.pooled_embeddings(index, weight)
        return pooled, self.linear_term(index, weight) + fm_term(pooled)

    def deep_term(self, pooled: Tensor) -> Tensor:
        """The dense layers' part of the logit, `[rows]`; zero without hidden layers."""
        if not len(self.deep):
            return pooled.new_zeros(len(pooled))
        deep: Tensor = self.deep(pooled.flatten(1)).squeeze(1)
        return deep

    def linear_term(self, index: Tensor, weight: Tensor | None) -> Tensor:
        """First order: bias + sum of w_i x_i, `[rows]`."""
        linear: Tensor = self.linear(index).squeeze(2)  # [rows, slots]
        return self.bias + (linear if weight is None else linear * weight).sum(1)

    def pooled_embeddings(self, index: Tensor, weight: Tensor | None) -> Tensor:
        """One vector per field, sum of v_i x_i over its slots: `[rows, fields, dim]`."""
        if not self.is_plain:
            index = index[:, self.slots]
            weight = weight if weight is None else weight[:, self.slots]
        embedded: Tensor = self.embedding(index)  # [rows, embedded slots, dim]
        if weight is not None:
            embedded = embedded * weight[:, :, None]
        if self.is_plain:
            return embedded
        pooled = embedded.new_zeros(len(index), self.fields, embedded.shape[2])
        return pooled.index_add(1, self.field, embedded)


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


def slot_fields(schema: Schema) -> Sequence[int]:
    """For each slot of the batch, which vector of the deep term it adds to; -1 for none."""
    fields, place = [], 0
    for side in SIDES:
        for member in schema.side(side):
            fields += [place if member.embedding else -1] * member.slots
            place += int(member.embedding)
    return fields

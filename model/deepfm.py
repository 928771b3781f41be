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
from model.dropout import Dropout
from model.tables import SlotRuns, look_up

# Whether the CPU multiplies in bfloat16, at twice the speed of float32; dense layers of few weights
# gain nothing by it.
BF16_FROM_WEIGHTS = 100_000
HAS_BF16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


class DeepFM(nn.Module):
    """The network; gives the logit, and leaves sigmoid and calibration to loss and export.

    Args:
        schema: the fields.
        config: the sizes.
    """

    def __init__(self, schema: Schema, config: ModelConfig) -> None:
        super().__init__()
        places = slot_fields(schema)
        self.slot_count = len(places)
        self.slots = SlotRuns(places)
        self.embedding = nn.Embedding(schema.embedding_size, config.embedding_dim)
        self.linear = nn.Embedding(schema.size, 1)
        self.bias = nn.Parameter(torch.zeros(()))
        self.deep = dense_layers(self.slots.fields * config.embedding_dim, config)
        weights = sum(parameter.numel() for parameter in self.deep.parameters())
        self.uses_bf16 = HAS_BF16 and weights >= BF16_FROM_WEIGHTS
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
        pooled, base = look_up(index, weight, self.embedding.weight, self.linear.weight, self.slots)
        return pooled, self.bias + base

    def deep_term(self, pooled: Tensor) -> Tensor:
        """The dense layers' part of the logit, `[rows]`; zero without hidden layers.

        In training large layers multiply in bfloat16 where the CPU can; weights, gradients and
        all that is judged or exported stay float32.
        """
        if not len(self.deep):
            return pooled.new_zeros(len(pooled))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and self.uses_bf16):
            deep: Tensor = self.deep(pooled.flatten(1)).squeeze(1)
        return deep.float()


def dense_layers(width: int, config: ModelConfig) -> nn.Sequential:
    """Linear, batch norm, ReLU and dropout per hidden width, then one output; maybe nothing."""
    layers: list[nn.Module] = []
    for out in config.hidden:
        layers.append(nn.Linear(width, out))
        if config.batch_norm:
            layers.append(nn.BatchNorm1d(out))
        layers.append(nn.ReLU())
        if config.dropout:
            layers.append(Dropout(config.dropout))
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

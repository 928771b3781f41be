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
from itertools import pairwise

import torch
from torch import Tensor, nn

from features.schema import SIDES, Schema
from model.activation import activate
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

    embedded_slots: Tensor
    wide_slots: Tensor

    def __init__(self, schema: Schema, config: ModelConfig) -> None:
        super().__init__()
        places = slot_fields(schema)
        embedded = [slot for slot, place in enumerate(places) if place >= 0]
        wide = [slot for slot, place in enumerate(places) if place < 0]
        self.slots = SlotRuns([places[slot] for slot in embedded])
        self.register_buffer("embedded_slots", torch.tensor(embedded), persistent=False)
        self.register_buffer("wide_slots", torch.tensor(wide, dtype=torch.int64), persistent=False)
        self.embedding = nn.Embedding(schema.embedding_size, config.embedding_dim)
        self.linear = nn.Embedding(schema.embedding_size, 1)
        wide_size = schema.size - schema.embedding_size
        self.wide = nn.Embedding(wide_size, 1, sparse=True) if wide_size else None
        self.bias = nn.Parameter(torch.zeros(()))
        self.deep = dense_layers(self.slots.fields * config.embedding_dim, config)
        weights = sum(parameter.numel() for parameter in self.deep.parameters())
        self.uses_bf16 = HAS_BF16 and weights >= BF16_FROM_WEIGHTS
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
        pooled, base = self.embed(index, weight)
        return base.repeat(passes) + self.deep_term(pooled, passes)

    def embed(self, index: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One vector per field `[rows, fields, dim]`, and linear plus FM term `[rows]`.

        The vectors are bfloat16 where the dense layers will multiply in it.
        """
        bias: Tensor = self.bias
        if self.wide is not None:
            bias = bias + self.wide_term(index, weight)
            index = index[:, self.embedded_slots]
            weight = None if weight is None else weight[:, self.embedded_slots]
        tables = self.embedding.weight, self.linear.weight
        is_half = self.training and self.uses_bf16
        pooled, base = look_up(index, weight, *tables, self.slots, is_half)
        return pooled, bias + base

    def wide_term(self, index: Tensor, weight: Tensor | None) -> Tensor:
        """First order of the slots without an embedding, of a batch of all slots: `[rows]`."""
        assert self.wide is not None
        wide: Tensor = self.wide(index[:, self.wide_slots] - self.embedding.num_embeddings)
        wide = wide.squeeze(2)  # [rows, wide slots]
        return (wide if weight is None else wide * weight[:, self.wide_slots]).sum(1)

    def deep_term(self, pooled: Tensor, passes: int = 1) -> Tensor:
        """The dense layers' part of the logits, `[passes * rows]`; zero without hidden layers.

        Up to the first dropout all passes are alike: that part is computed once.

        In training large layers multiply in bfloat16 where the CPU can; weights, gradients and
        all that is judged stay float32.
        """
        if not len(self.deep):
            return pooled.new_zeros(passes * len(pooled))
        hidden, left = pooled.flatten(1), passes
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and self.uses_bf16):
            for linear, *following in blocks(self.deep):
                hidden = linear(hidden)
                if following:
                    now = left if isinstance(following[-1], nn.Dropout) else 1
                    hidden = activate(following, hidden, now)
                    left //= now
        return hidden.squeeze(1).float().repeat(left)


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


def blocks(layers: nn.Sequential) -> list[list[nn.Module]]:
    """Each linear layer with what follows it."""
    starts = [place for place, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    return [list(layers)[first:stop] for first, stop in pairwise([*starts, len(layers)])]


def slot_fields(schema: Schema) -> Sequence[int]:
    """For each slot of the batch, which vector of the deep term it adds to; -1 for none."""
    fields, place = [], 0
    for side in SIDES:
        for member in schema.members(side):
            fields += [place if member.embedding else -1] * member.slots
            place += int(member.embedding)
    return fields

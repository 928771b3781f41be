"""Training values replaced by missing and unknown, so that the reserved indices are learned.

A log often holds no missing or unknown value at all; online, one shows up on the first day. Where
the log holds fewer than a given share, that share is topped up with random rows in every batch.
Crosses of a replaced value are computed anew: online, a missing part moves its crosses as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from features.crosser import Crosser
from features.schema import SIDES, CategoricalField, Schema


@dataclass(frozen=True)
class _Replacement:
    """One reserved index of one field: where it goes, and in which share of the rows."""

    index: int
    first_slot: int
    slots: int
    rate: float


class ReservedSampling:
    """Replaces values in encoded batches.

    Args:
        schema: the fields.
        counts: `[schema.size]`, training rows per index.
        rows: number of training rows.
        rate: least share of the rows that each reserved index is to hold.
        generator: draws the rows.
    """

    def __init__(
        self, schema: Schema, counts: Tensor, rows: int, rate: float, generator: torch.Generator
    ) -> None:
        self.generator = generator
        self.replacements: list[_Replacement] = []
        self.crosser = Crosser(schema) if schema.crosses else None
        for side, begin in zip(SIDES, (0, schema.slots("context")), strict=True):
            slots = schema.first_slots(side)
            for field in schema.side(side):
                first = schema.ranges[field.name].start
                reserved = [first] if field.missing == "bucket" else []
                if isinstance(field, CategoricalField) and field.unknown_index is not None:
                    reserved.append(first + field.unknown_index)
                for index in reserved:
                    lacking = rate - float(counts[index]) / rows
                    if lacking > 0:
                        slot = begin + slots[field.name]
                        self.replacements.append(_Replacement(index, slot, field.slots, lacking))

    def replace(self, index: Tensor, weight: Tensor | None) -> None:
        """Change `[rows, slots]` index and weight in place."""
        if not self.replacements:
            return
        shape = (len(index), len(self.replacements))
        draws = torch.rand(shape, generator=self.generator)
        touched = torch.zeros(len(index), dtype=torch.bool)
        for draw, replaced in zip(draws.unbind(1), self.replacements, strict=True):
            rows = (draw < replaced.rate).nonzero().squeeze(1)
            touched[rows] = True
            index[rows, replaced.first_slot] = replaced.index
            if weight is not None:
                # The whole field is replaced: a multi field's other values fall away.
                weight[rows, replaced.first_slot : replaced.first_slot + replaced.slots] = 0
                weight[rows, replaced.first_slot] = 1
        if self.crosser is not None:
            self._cross(self.crosser, index, weight, touched.nonzero().squeeze(1))

    def _cross(self, crosser: Crosser, index: Tensor, weight: Tensor | None, rows: Tensor) -> None:
        """Compute the crosses of some rows anew."""
        changed = index[rows].numpy()
        crosser.fill_joined(changed, None if weight is None else weight[rows].numpy())
        index[rows] = torch.from_numpy(changed)

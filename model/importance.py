"""Permutation importance: what the AUC loses when one field's values are shuffled among the rows.

Source: Breiman 2001, "Random Forests", section 10. A field that says what another one says too
looks less important than it is: the network still has the other one.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from features.crosser import Crosser
from features.schema import SIDES, Schema
from model.deepfm import DeepFM
from model.metrics import auc
from model.run import Sample

N = TypeVar("N", np.int32, np.float32)

MOST_ROWS = 20_000
# Rows through the network in all, whatever the number of fields: a few seconds for a wide one.
MOST_FORWARD_ROWS = 400_000


def permutation_importance(
    network: DeepFM, schema: Schema, sample: Sample
) -> tuple[dict[str, float], int]:
    """Drop of the AUC for every field.

    Args:
        network: leaves in evaluation mode.
        schema: the network was built for.
        sample: encoded rows that were not trained on.

    Returns:
        Drop by field, NaN where the rows hold one label only, and how many rows were judged.
    """
    random = np.random.default_rng(0)
    rows = min(len(sample.label), MOST_ROWS, MOST_FORWARD_ROWS // (len(schema.fields) + 1))
    chosen = np.sort(random.permutation(len(sample.label))[:rows])
    index, label = sample.index[chosen], sample.label[chosen]
    weight = None if sample.weight is None else sample.weight[chosen]
    whole = auc(_logit(network, index, weight), label)
    order = random.permutation(rows)
    drops = {}
    crosser = Crosser(schema)
    for name, columns in field_columns(schema).items():
        shuffled = _shuffled(index, columns, order)
        weights = None if weight is None else _shuffled(weight, columns, order)
        crosser.fill_joined(shuffled, weights)  # the field moves its crosses
        drops[name] = whole - auc(_logit(network, shuffled, weights), label)
    return drops, rows


def field_columns(schema: Schema) -> dict[str, slice]:
    """Each field's columns in a matrix of context slots, then candidate slots."""
    columns = {}
    for side, begin in zip(SIDES, (0, schema.slots("context")), strict=True):
        slots = schema.first_slots(side)
        for field in schema.side(side):
            first = begin + slots[field.name]
            columns[field.name] = slice(first, first + field.slots)
    return columns


def _shuffled(part: NDArray[N], columns: slice, order: NDArray[np.int64]) -> NDArray[N]:
    shuffled = part.copy()
    shuffled[:, columns] = part[order, columns]
    return shuffled


@torch.inference_mode()
def _logit(
    network: DeepFM, index: NDArray[np.int32], weight: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    weights = None if weight is None else torch.from_numpy(weight)
    logit: NDArray[np.float32] = network.eval()(torch.from_numpy(index), weights).numpy()
    return logit

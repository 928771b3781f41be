"""Look-up in the embedding and linear tables, and the gradient of just the rows it touched.

`model/_tables.c` does it in one pass each way where the compiled module was built (it is optional:
no compiler, no module); plain torch does the same elsewhere. Tests hold the two equal. Either way
the tables' gradients are sparse tensors: a batch touches few rows of a large table.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

try:
    from model import _tables
except ImportError:
    IS_COMPILED = False
else:
    IS_COMPILED = True

_MOST_DIM = 1024  # as in _tables.c


class SlotRuns:
    """Which slots of a batch belong together.

    Args:
        places: for each slot, which vector of the deep term it adds to. Slots of one field follow
            each other, and no two fields share a row of a table.
    """

    def __init__(self, places: Sequence[int]) -> None:
        runs, first = [], 0
        for place, slots in groupby(places):
            stop = first + len(list(slots))
            runs.append((first, stop, place))
            first = stop
        self.fields = max(places) + 1
        self.runs = np.array(runs, np.int32)
        self.place = torch.tensor(places)
        self.is_plain = list(places) == list(range(self.fields))


def look_up(
    index: Tensor,
    weight: Tensor | None,
    embedding: Tensor,
    linear: Tensor,
    slots: SlotRuns,
    is_half: bool = False,
) -> tuple[Tensor, Tensor]:
    """One vector per field, and linear plus FM term without the bias.

    Args:
        index: `[rows, slots]` int32 or int64.
        weight: `[rows, slots]` float32; None for all 1.
        embedding: `[size, dim]` float32.
        linear: `[size, 1]` float32.
        slots: of the batch.
        is_half: whether the vectors are wanted in bfloat16.

    Returns:
        `[rows, fields, dim]` float32 or bfloat16 and `[rows]` float32; gradients of both tables are
        sparse. The FM term is computed of float32 in either case.

    Raises:
        IndexError: an index lies outside its table.
    """
    is_plain = embedding.dtype == torch.float32 and embedding.shape[1] <= _MOST_DIM
    if IS_COMPILED and is_plain and index.device.type == "cpu":
        found = _LookUp.apply(index, weight, embedding, linear, (slots, is_half))  # type: ignore[no-untyped-call]
        return cast("tuple[Tensor, Tensor]", found)
    first = functional.embedding(index, linear, sparse=True).squeeze(2)  # [rows, slots]
    base = (first if weight is None else first * weight).sum(1)
    pooled = _pooled(index, weight, embedding, slots)
    return pooled.bfloat16() if is_half else pooled, base + fm_term(pooled)


def fm_term(pooled: Tensor) -> Tensor:
    """Second order of `[rows, fields, dim]`: the sum over pairs i < j of <v_i, v_j>, `[rows]`.

    Source: Rendle 2010, lemma 3.1: half of (square of the sum - sum of the squares).
    """
    total = pooled.sum(1)  # [rows, dim]
    return 0.5 * ((total * total).sum(1) - (pooled * pooled).sum((1, 2)))


def memory(tensor: Tensor | None) -> Any:
    """The tensor's own memory as an array, for the compiled module, which refuses gaps in it."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    # numpy knows no bfloat16.
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def summed(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `[touched]` of a sparse gradient, each once, and their sums `[touched, dim]`."""
    rows, values = grad._indices()[0].contiguous(), grad._values().contiguous()
    is_cpu = rows.device.type == "cpu"
    if IS_COMPILED and is_cpu and _tables.is_distinct(memory(rows), len(grad)):
        return rows, values  # as `look_up` gives it; sorting it would take as long as the update
    grad = grad.coalesce()
    return grad.indices()[0].contiguous(), grad.values()


def _pooled(index: Tensor, weight: Tensor | None, embedding: Tensor, slots: SlotRuns) -> Tensor:
    embedded = functional.embedding(index, embedding, sparse=True)  # [rows, slots, dim]
    if weight is not None:
        embedded = embedded * weight[:, :, None]
    if slots.is_plain:
        return embedded
    pooled = embedded.new_zeros(len(index), slots.fields, embedded.shape[2])
    return pooled.index_add(1, slots.place, embedded)


class _LookUp(torch.autograd.Function):
    """`look_up` in compiled passes; what it saves for the way back is what it gives."""

    @staticmethod
    def forward(
        ctx: Any,
        index: Tensor,
        weight: Tensor | None,
        embedding: Tensor,
        linear: Tensor,
        form: tuple[SlotRuns, bool],
    ) -> tuple[Tensor, Tensor]:
        slots, is_half = form
        index = index.int().contiguous()
        weight = None if weight is None else weight.contiguous()
        rows, dim = len(index), embedding.shape[1]
        pooled = embedding.new_empty(rows, slots.fields, dim)
        total, base = embedding.new_empty(rows, dim), embedding.new_empty(rows)
        half = torch.empty_like(pooled, dtype=torch.bfloat16) if is_half else None
        _tables.look_up(
            *(memory(part) for part in (index, weight)), slots.runs,
            *(memory(part) for part in (pooled, total, base, embedding, linear, half)),
            rows, index.shape[1], slots.fields, dim, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(index, weight, pooled, total)
        ctx.slots, ctx.shapes = slots, (embedding.shape, linear.shape)
        ctx.set_materialize_grads(False)
        return pooled if half is None else half, base

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pooled_grad: Tensor | None, base_grad: Tensor | None) -> Any:
        index, weight, pooled, total = ctx.saved_tensors
        base_grad = total.new_zeros(len(index)) if base_grad is None else base_grad.contiguous()
        pooled_grad = None if pooled_grad is None else pooled_grad.contiguous()
        touched = torch.empty(index.numel(), dtype=torch.int64)
        values = total.new_empty(index.numel(), pooled.shape[2])
        linear_values = total.new_empty(index.numel(), 1)
        count = _tables.merge(
            *(memory(part) for part in (index, weight)), ctx.slots.runs,
            *(memory(part) for part in (pooled, total, base_grad, pooled_grad)),
            *(memory(part) for part in (touched, values, linear_values)),
            pooled_grad is not None and pooled_grad.dtype == torch.bfloat16,
            *index.shape, *pooled.shape[1:], torch.get_num_threads(),
        )  # fmt: skip
        embedding, linear = ctx.shapes
        return (
            None,
            None,
            _sparse(touched[:count], values[:count], embedding),
            _sparse(touched[:count], linear_values[:count], linear),
            None,
        )


def _sparse(touched: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """Gradient of some rows, each there once but in no order, so not coalesced in torch's sense."""
    return torch.sparse_coo_tensor(touched[None], values, shape, check_invariants=False)

"""The one graph that serves both endpoints: the context part once per request, then per candidate.

It computes what `model.deepfm.DeepFM` computes in evaluation mode, rearranged:
- second order = 0.5 * sum_k ((Sc + Si)^2 - (Qc + Qi)), S the sums and Q the sums of squares of
  each side's embeddings, so that a context is pooled once and not per candidate;
- the linear weight of an index lies behind its embedding, in one table: a look-up is little but the
  wait for memory, and so there is one for both;
- the first dense layer is two: Wc ec + Wi ei + b. Two `nn.Linear`, because slices of one weight
  would stay slices in the graph;
- batch norm is folded into the dense layer in front of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from features.schema import Schema, Side
from model.calibrate import CLIP, Calibration
from model.deepfm import DeepFM


class BundleGraph(nn.Module):
    """Network and calibration in the form that is exported.

    Args:
        network: in evaluation mode; it stays as it is, its tables are copied into one.
        schema: the network was built for.
        calibration: applied to the logit.
    """

    def __init__(self, network: DeepFM, schema: Schema, calibration: Calibration) -> None:
        super().__init__()
        self.table = _joined_table(network)
        self.wide = network.wide
        self.bias = network.bias
        self.context = SidePooling(schema, "context")
        self.candidate = SidePooling(schema, "candidate")
        self.has_context = bool(schema.side("context"))
        layers = folded_layers(network.deep)
        self.is_deep = bool(layers)
        if self.is_deep:
            width = self.context.fields * network.embedding.embedding_dim
            self.has_deep_context = width > 0
            self.first_candidate = _columns(layers[0], slice(width, None), has_bias=True)
            if self.has_deep_context:
                self.first_context = _columns(layers[0], slice(0, width), has_bias=False)
            self.rest = nn.ModuleList(layers[1:])
        self.calibration = CalibrationLayer(calibration)

    def forward(
        self,
        context: Tensor | None,
        candidate: Tensor,
        context_row: Tensor | None,
        context_weight: Tensor | None = None,
        candidate_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logit and score of every candidate.

        Args:
            context: `[R, C]` int64, or None for a model without context fields.
            candidate: `[N, D]` int64.
            context_row: `[N]` int64, the row of `context` that belongs to each candidate.
            context_weight: `[R, C]` float32, for a weighted side.
            candidate_weight: `[N, D]` float32, for a weighted side.

        Returns:
            `[N]` float32 each.
        """
        pooled, total, linear = self._side(self.candidate, candidate, candidate_weight)
        squares = (pooled * pooled).sum((1, 2))  # [N]
        hidden = self.first_candidate(pooled.flatten(1)) if self.is_deep else None  # [N, H]
        if self.has_context:
            assert context is not None
            assert context_row is not None
            pooled_c, total_c, linear_c = self._side(self.context, context, context_weight)
            shared = linear_c - 0.5 * (pooled_c * pooled_c).sum((1, 2))  # [R]
            linear = linear + shared[context_row]
            total = total + total_c[context_row]
            if hidden is not None and self.has_deep_context:
                hidden = hidden + self.first_context(pooled_c.flatten(1))[context_row]
        logit = linear + 0.5 * ((total * total).sum(1) - squares) + self.bias
        if hidden is not None:
            for layer in self.rest:
                hidden = layer(torch.relu(hidden))
            logit = logit + hidden.squeeze(1)
        return logit, self.calibration(logit)

    def _side(
        self, pooling: SidePooling, index: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors `[rows, fields, K]`, their sum `[rows, K]`, first order `[rows]`."""
        cut = pooling.embedded_slots
        looked_up = self.table(index[:, :cut])  # [rows, slots, K + 1]
        if weight is not None:
            looked_up = looked_up * weight[:, :cut, None]
        pooled = pooling(looked_up)
        sums = pooled.sum(1)
        linear = sums[:, -1]
        if self.wide is not None and pooling.slots > cut:
            wide = self.wide(index[:, cut:] - self.table.num_embeddings).squeeze(2)
            linear = linear + (wide if weight is None else wide * weight[:, cut:]).sum(1)
        return pooled[:, :, :-1], sums[:, :-1], linear


class SidePooling(nn.Module):
    """Sums the slots of each multi field of one side; a plain field's slot is its own sum.

    Args:
        schema: the fields.
        side: which of them.
    """

    def __init__(self, schema: Schema, side: Side) -> None:
        super().__init__()
        widths = [member.slots for member in schema.members(side) if member.embedding]
        self.fields = len(widths)
        self.slots = schema.slots(side)
        self.embedded_slots = sum(widths)
        self.runs = _runs(widths)

    def forward(self, embedded: Tensor) -> Tensor:
        """`[rows, slots, width]`, weighted -> `[rows, fields, width]`."""
        if self.fields == self.embedded_slots:
            return embedded
        parts, begin = [], 0
        for width, is_multi in self.runs:
            part = embedded[:, begin : begin + width]
            parts.append(part.sum(1, keepdim=True) if is_multi else part)
            begin += width
        return torch.cat(parts, 1)


class CalibrationLayer(nn.Module):
    """`model.calibrate.Calibration.score` as a part of the graph."""

    knots: Tensor
    slope: Tensor
    origin: Tensor
    level: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.calibration = calibration
        if calibration.method == "isotonic":
            knots = torch.tensor(calibration.knots, dtype=torch.float64)
            values = torch.tensor(calibration.values, dtype=torch.float64)
            # Segment k lies between knots k-1 and k; outside the ends the curve is flat.
            slope = torch.zeros(len(knots) + 1, dtype=torch.float64)
            slope[1:-1] = values.diff() / knots.diff()
            origin = torch.cat([knots[:1], knots])
            level = torch.cat([values[:1], values])
            for name, tensor in (
                ("knots", knots),
                ("slope", slope),
                ("origin", origin),
                ("level", level),
            ):
                self.register_buffer(name, tensor.float())

    def forward(self, logit: Tensor) -> Tensor:
        """`[N]` logits -> `[N]` scores within [1e-6, 1 - 1e-6]."""
        fitted = self.calibration
        rate = fitted.negative_sampling_rate
        if fitted.method == "isotonic":
            segment = (logit[:, None] > self.knots).sum(1)
            rise = self.slope[segment] * (logit - self.origin[segment])
            probability = self.level[segment] + rise
            if rate != 1:
                probability = probability * rate / (1 - probability + probability * rate)
        else:
            # The shift is a step of the logit: on a probability near 1 it would multiply
            # float32's rounding by 1 / rate.
            slope, intercept = fitted.slope, fitted.intercept + math.log(rate)
            is_plain = (slope, intercept) == (1, 0)
            probability = torch.sigmoid(logit if is_plain else slope * logit + intercept)
        return probability.clamp(CLIP, 1 - CLIP)


def folded_layers(deep: nn.Sequential) -> list[nn.Linear]:
    """The dense layers of a Linear/BatchNorm1d/ReLU/Dropout stack, batch norm folded in."""
    layers: list[nn.Linear] = []
    for module in deep:
        if isinstance(module, nn.Linear):
            layers.append(module)
        elif isinstance(module, nn.BatchNorm1d):
            layers[-1] = torch.nn.utils.fuse_linear_bn_eval(layers[-1], module)
    return layers


def _joined_table(network: DeepFM) -> nn.Embedding:
    """Embedding and linear weight of every index that has both, `[indices, K + 1]`."""
    joined = torch.cat([network.embedding.weight, network.linear.weight], 1)
    rows, columns = joined.shape
    return nn.Embedding(rows, columns, _weight=joined.detach())


def _columns(layer: nn.Linear, columns: slice, has_bias: bool) -> nn.Linear:
    """The part of a dense layer that reads some columns of its input."""
    weight = layer.weight[:, columns]
    part = nn.Linear(weight.shape[1], layer.out_features, bias=has_bias)
    with torch.no_grad():
        part.weight.copy_(weight)
        if has_bias:
            part.bias.copy_(layer.bias)
    return part


def _runs(widths: list[int]) -> list[tuple[int, bool]]:
    """Consecutive slots pooled alike: (slots, whether they are one multi field)."""
    runs: list[tuple[int, bool]] = []
    for width in widths:
        if width == 1 and runs and not runs[-1][1]:
            runs[-1] = (runs[-1][0] + 1, False)
        else:
            runs.append((width, width > 1))
    return runs

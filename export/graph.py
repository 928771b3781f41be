"""The one graph that serves both endpoints: the context part once per request, then per candidate.

It computes what `model.deepfm.DeepFM` computes in evaluation mode, rearranged, for every node costs
the runtime about a microsecond, which is what one row waits for:
- second order = 0.5 * sum_k (Sc + Si)^2 - 0.5 * (Qc + Qi), S the sums and Q the sums of squares of
  each side's embeddings, so that a context is pooled once and not per candidate;
- the linear weight of an index lies behind its embedding, in one table: a look-up is little but the
  wait for memory, and so there is one for both. Where no weight multiplies the embedding, its half
  of the squares is in there too: the sum over a side's rows is then all that FM wants of them;
- the first dense layer is two, Wc ec + b and Wi ei, because slices of one weight would stay slices
  in the graph; what the context gives is the bias of the candidate's multiplication;
- batch norm is folded into the dense layer in front of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from features.schema import SIDES, Schema, Side
from model.calibrate import CLIP, Calibration
from model.deepfm import DeepFM


class BundleGraph(nn.Module):
    """Network and calibration in the form that is exported.

    Args:
        network: in evaluation mode; it stays as it is, its tables are copied into one.
        schema: the network was built for.
        calibration: applied to the logit.
        precision: `int8` for a graph that is to be quantised: a product of integers has no bias
            that differs from row to row, and would stay in float.
    """

    def __init__(
        self, network: DeepFM, schema: Schema, calibration: Calibration, precision: str = "fp32"
    ) -> None:
        super().__init__()
        self.table = _joined_table(network, schema)
        self.wide = network.wide
        self.bias = network.bias
        self.context = SidePooling(schema, "context")
        self.candidate = SidePooling(schema, "candidate")
        self.has_context = bool(schema.side("context"))
        self.has_row_bias = precision == "fp32"
        layers = folded_layers(network.deep)
        self.is_deep = bool(layers)
        if self.is_deep:
            width = self.context.fields * network.embedding.embedding_dim
            self.has_deep_context = width > 0
            self.first_candidate = _columns(
                layers[0], slice(width, None), has_bias=not self.has_deep_context
            )
            if self.has_deep_context:
                self.first_context = _columns(layers[0], slice(0, width), has_bias=True)
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
        vectors, sums = self._side(self.candidate, candidate, candidate_weight)
        hidden = None
        if self.has_context:
            assert context is not None
            assert context_row is not None
            vectors_c, sums_c = self._side(self.context, context, context_weight)
            sums = sums + sums_c.index_select(0, context_row)
            if self.is_deep and self.has_deep_context:
                shared = self.first_context(vectors_c).index_select(0, context_row)  # [N, H]
                hidden = self._first(vectors, shared)
        if self.is_deep and hidden is None:
            hidden = self.first_candidate(vectors)
        total, rest = sums[:, :-1], sums[:, -1]
        logit = 0.5 * (total * total).sum(1) + rest + self.bias
        if hidden is not None:
            for layer in self.rest:
                hidden = layer(torch.relu(hidden))
            logit = logit + hidden.squeeze(1)
        return logit, self.calibration(logit)

    def _first(self, vectors: Tensor, shared: Tensor) -> Tensor:
        """The first dense layer: a candidate's part beside its context's, `[N, H]`."""
        if self.has_row_bias:
            return torch.addmm(shared, vectors, self.first_candidate.weight.t())
        own: Tensor = self.first_candidate(vectors)
        return own + shared

    def _side(
        self, pooling: SidePooling, index: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """All vectors of a row, and what FM wants of their sum.

        Returns:
            `[rows, fields * K]`, and `[rows, K + 1]`: the sum of the vectors, then the first order
            less half the sum of their squares.
        """
        cut = pooling.embedded_slots
        looked_up = self.table(index[:, :cut])  # [rows, slots, K + 1]
        if weight is not None:
            looked_up = looked_up * weight[:, :cut, None]
        pooled = pooling(looked_up)
        vectors, sums = pooled[:, :, :-1], pooled.sum(1)
        rest = []
        if weight is not None:
            rest.append(-0.5 * (vectors * vectors).sum((1, 2)))
        if self.wide is not None and pooling.slots > cut:
            wide = self.wide(index[:, cut:] - self.table.num_embeddings).squeeze(2)
            rest.append((wide if weight is None else wide * weight[:, cut:]).sum(1))
        if rest:
            sums = torch.cat([sums[:, :-1], (sums[:, -1] + sum(rest))[:, None]], 1)
        return vectors.flatten(1), sums


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


def _joined_table(network: DeepFM, schema: Schema) -> nn.Embedding:
    """Embedding and linear weight of every index that has both, `[indices, K + 1]`.

    The weight is less by half the embedding's square on a side where nothing multiplies either.
    """
    joined = torch.cat([network.embedding.weight, network.linear.weight], 1).detach()
    for side in SIDES:
        if schema.is_weighted(side):
            continue
        for member in schema.members(side):
            if member.embedding:
                owned = schema.ranges[member.name]
                part = joined[owned.start : owned.stop]
                part[:, -1] -= 0.5 * part[:, :-1].square().sum(1)
    rows, columns = joined.shape
    return nn.Embedding(rows, columns, _weight=joined)


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

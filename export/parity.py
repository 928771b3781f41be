"""PyTorch against ONNX Runtime on the same rows: no bundle leaves when they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from features.encode import Encoded
from features.errors import ParityError
from features.int8 import exact_sums
from features.schema import SIDES, Schema
from model.calibrate import Calibration
from model.deepfm import DeepFM

TOLERANCE = 1e-5
# One row, the sizes an exporter may have frozen, and a full request.
CHECKED_ROWS = (1, 2, 7, 1000)


class Graph:
    """An exported graph on ONNX Runtime, one thread.

    Args:
        path: of `model.onnx`.
        schema: the graph was exported for.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        for entry in exact_sums().items():
            options.add_session_config_entry(*entry)
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.has_context = bool(schema.side("context"))

    def run(
        self, context: Encoded, candidate: Encoded, context_row: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logit and score `[N]` of the candidates, each with its row of the context."""
        feed: dict[str, NDArray[Any]] = {"candidate": candidate.index}
        if candidate.weight is not None:
            feed["candidate_weight"] = candidate.weight
        if self.has_context:
            feed |= {"context": context.index, "context_row": context_row}
            if context.weight is not None:
                feed["context_weight"] = context.weight
        logit, score = self.session.run(["logit", "score"], feed)
        return logit, score


def network_logit(network: DeepFM, context: Encoded, candidate: Encoded) -> NDArray[np.float32]:
    """The network's own logits `[N]` of joined rows."""
    index = np.concatenate([context.index, candidate.index], 1)
    weight = None
    if context.weight is not None or candidate.weight is not None:
        weights = [
            np.ones(part.index.shape, np.float32) if part.weight is None else part.weight
            for part in (context, candidate)
        ]
        weight = torch.from_numpy(np.concatenate(weights, 1))
    with torch.inference_mode():
        logit: NDArray[np.float32] = network.eval()(torch.from_numpy(index), weight).numpy()
    return logit


def check_parity(
    graph: Graph,
    network: DeepFM,
    calibration: Calibration,
    context: Encoded,
    candidate: Encoded,
) -> float:
    """Compare scores on joined rows: all together, in small numbers, and sharing one context.

    Args:
        graph: the exported one.
        network: the trained one.
        calibration: folded into the graph.
        context: `[N, C]` rows.
        candidate: `[N, D]` rows.

    Returns:
        The largest difference of two scores.

    Raises:
        ParityError: it is beyond `TOLERANCE`, or a score is not finite; names row and scores.
    """
    worst = 0.0
    total = len(candidate.index)
    for rows in sorted({min(rows, total) for rows in (*CHECKED_ROWS, total)}):
        own = _take(context, np.arange(rows)), _take(candidate, np.arange(rows))
        shared = _take(context, np.zeros(rows, np.int64)), own[1]
        for joined, given, context_row in (
            (own, own[0], np.arange(rows)),
            (shared, _take(context, np.zeros(1, np.int64)), np.zeros(rows, np.int64)),
        ):
            expected = calibration.score(network_logit(network, *joined))
            _, score = graph.run(given, joined[1], context_row)
            worst = max(worst, _difference(score, expected, rows))
    return worst


def split_sides(
    schema: Schema, index: NDArray[np.int32], weight: NDArray[np.float32] | None
) -> tuple[Encoded, Encoded]:
    """Rows of a run folder `[N, C + D]` as context and candidate."""
    cut = schema.slots("context")
    parts = []
    for side, columns in zip(SIDES, (slice(0, cut), slice(cut, None)), strict=True):
        own = None
        if schema.is_weighted(side) and weight is not None:
            own = np.ascontiguousarray(weight[:, columns])
        parts.append(Encoded(np.ascontiguousarray(index[:, columns], np.int64), own))
    return parts[0], parts[1]


def _take(rows: Encoded, chosen: NDArray[np.int64]) -> Encoded:
    return Encoded(rows.index[chosen], None if rows.weight is None else rows.weight[chosen])


def _difference(score: NDArray[np.float32], expected: NDArray[np.float64], rows: int) -> float:
    difference = np.abs(score - expected)
    if len(score) != rows or not (difference <= TOLERANCE).all():
        worst = int(np.nanargmax(np.where(np.isfinite(difference), difference, np.inf)))
        raise ParityError(
            f"of {rows} rows, row {worst} scores {score[worst]:.7f} with ONNX Runtime and "
            f"{expected[worst]:.7f} with PyTorch: more than {TOLERANCE} apart"
        )
    return float(difference.max())

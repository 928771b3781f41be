"""The dense layers in 8-bit integers: static ranges from training rows, and the gate to pass.

Weights become int8 with a scale per output channel, activations uint8 with one range each, measured
on training rows. Ranges are fixed then, so that a row's score does not depend on the rows it runs
with, as it does where the scale is taken from each batch. The tables are in half precision; they
are taken out before quantising, which would hold them in memory four times over.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from export.parity import Graph
from export.to_onnx import save_graph
from features.bundle import MODEL_DATA_FILE, MODEL_FILE
from features.encode import Encoded
from features.errors import ParityError
from model.calibrate import Calibration
from model.metrics import evaluate

TOLERANCE = 1e-4
MOST_AUC_LOST = 0.0005
MOST_LOG_LOSS_GAINED = 0.001  # relative
_RANGE_ROWS = 4096
_ROWS_PER_RUN = 512
_DENSE = ["Gemm", "MatMul"]


@dataclass(frozen=True)
class Comparison:
    """Metrics of both precisions on the same rows.

    Args:
        rows: how many.
        fp32: AUC and log loss of the calibrated score.
        int8: the same.
    """

    rows: int
    fp32: dict[str, float]
    int8: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def quantize(folder: Path, tables: set[str], context: Encoded, candidate: Encoded) -> None:
    """Replace the graph in `folder` by one whose dense layers are in 8-bit integers.

    Args:
        folder: holds the graph's two files.
        tables: names of the initializers that stay out of it.
        context: `[N, C]` training rows that give the ranges.
        candidate: `[N, D]` training rows.
    """
    model = onnx.load(str(folder / MODEL_FILE), load_external_data=False)
    kept = _take_out(model, folder, tables)
    reader = _Rows(model, kept, context, candidate)
    with _silent_root_logger(), tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save_model(model, str(source))
        quantize_static(
            str(source),
            str(target),
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_DENSE,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # An output in 8 bits as well would let the logit take 256 values only.
            extra_options={"OpTypesToExcludeOutputQuantization": _DENSE},
        )
        model = onnx.load(str(target))
    _put_back(model, kept)
    for file in (MODEL_FILE, MODEL_DATA_FILE):
        (folder / file).unlink(missing_ok=True)
    save_graph(model, folder)


def compare(
    fp32: NDArray[np.float32],
    graph: Graph,
    rows: tuple[Encoded, Encoded],
    label: NDArray[np.float32],
    calibration: Calibration,
) -> Comparison:
    """The gate: what the integers cost on rows that were not trained on.

    Args:
        fp32: the network's logits `[N]`.
        graph: the quantised one.
        rows: context and candidate of each row.
        label: `[N]`.
        calibration: of both.

    Raises:
        ParityError: they cost more than 0.0005 of AUC or 0.1 % of log loss, or the rows hold one
            label only.
    """
    if not 0 < label.sum() < len(label):
        raise ParityError(
            f"the {len(label):,} rows to compare int8 with fp32 on hold one label only: export fp32"
        )
    logit = np.concatenate(
        [
            graph.run(_part(rows[0], part), _part(rows[1], part), np.arange(len(label[part])))[0]
            for part in _parts(len(label))
        ]
    )
    found = []
    for values in (fp32, logit):
        metrics = evaluate(values, calibration.score(values, shifted=False), label, None)
        found.append({key: metrics[key] for key in ("auc", "log_loss")})
    comparison = Comparison(len(label), *found)
    lost = found[0]["auc"] - found[1]["auc"]
    gained = found[1]["log_loss"] / found[0]["log_loss"] - 1
    if lost > MOST_AUC_LOST or gained > MOST_LOG_LOSS_GAINED:
        raise ParityError(
            f"int8 costs {lost:.5f} of AUC and {gained:.3%} of log loss on {len(label):,} rows; "
            f"at most {MOST_AUC_LOST} and {MOST_LOG_LOSS_GAINED:.1%} are allowed: export fp32"
        )
    return comparison


@contextmanager
def _silent_root_logger() -> Iterator[None]:
    """The quantiser advises there a step that is of no use here."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _take_out(
    model: onnx.ModelProto, folder: Path, tables: set[str]
) -> dict[str, NDArray[np.float32]]:
    """Make the tables inputs of the graph; load every other weight into it."""
    kept, inside = {}, []
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
        if tensor.name in tables:
            kept[tensor.name] = numpy_helper.to_array(tensor)
            shape = [f"{tensor.name} rows", *tensor.dims[1:]]
            given = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, shape)
            model.graph.input.append(given)
        else:
            inside.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(inside)
    return kept


def _put_back(model: onnx.ModelProto, kept: dict[str, NDArray[np.float32]]) -> None:
    """Make the tables weights again, in half precision; what is looked up in them is float32.

    Raises:
        ParityError: a value is beyond half precision's range.
    """
    graph = model.graph
    inputs = [given for given in graph.input if given.name not in kept]
    del graph.input[:]
    graph.input.extend(inputs)
    known = [value for value in graph.value_info if value.name not in kept]  # of another type
    del graph.value_info[:]
    graph.value_info.extend(known)
    for name, table in kept.items():
        with np.errstate(over="ignore"):
            half = table.astype(np.float16)
        if not np.isfinite(half).all():
            raise ParityError(f"{name} holds values beyond {np.finfo(half.dtype).max}: export fp32")
        graph.initializer.append(numpy_helper.from_array(half, name))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        if node.op_type == "Gather" and node.input[0] in kept:
            found, halves = node.output[0], f"{node.output[0]}_half"
            graph.node[-1].output[0] = halves
            graph.node.append(helper.make_node("Cast", [halves], [found], to=TensorProto.FLOAT))


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    """Feeds training rows to the quantiser."""

    def __init__(
        self,
        model: onnx.ModelProto,
        kept: dict[str, NDArray[np.float32]],
        context: Encoded,
        candidate: Encoded,
    ) -> None:
        names = {given.name for given in model.graph.input}
        count = min(len(candidate.index), _RANGE_ROWS)

        def feeds() -> Iterator[dict[str, Any]]:
            for part in _parts(count):
                c, d = _part(context, part), _part(candidate, part)
                rows = np.arange(len(d.index))
                feed = {"context": c.index, "candidate": d.index, "context_row": rows,
                        "context_weight": c.weight, "candidate_weight": d.weight}  # fmt: skip
                yield {name: feed[name] for name in feed if name in names} | kept

        self._feeds = feeds()

    def get_next(self) -> dict[str, Any] | None:
        """The inputs of the next run, None at the end."""
        return next(self._feeds, None)


def _parts(rows: int) -> list[slice]:
    return [slice(at, min(at + _ROWS_PER_RUN, rows)) for at in range(0, rows, _ROWS_PER_RUN)]


def _part(rows: Encoded, part: slice) -> Encoded:
    return Encoded(rows.index[part], None if rows.weight is None else rows.weight[part])

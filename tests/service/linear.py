"""A bundle of a linear model for any schema: what a test needs beside the small trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.golden import golden_requests
from features.bundle import (
    GOLDEN_FILE,
    MODEL_DATA_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    Manifest,
    write_manifest,
)
from features.encode import Encoded, Encoder
from features.schema import SIDES, BucketField, CategoricalField, Schema, ValueField
from features.schema_file import fingerprint, save_schema
from features.vocabulary import Vocabulary

SCHEMA = Schema(
    (
        BucketField(name="age", side="context", boundaries=(18.0, 30.0, 50.0)),
        CategoricalField(name="city", side="context", vocabulary=Vocabulary.of(("Lyon", "Paris"))),
        BucketField(name="price", boundaries=(1.0, 10.0, 100.0)),
        ValueField(name="mass", missing="zero", minimum=0.0, maximum=5.0),
        CategoricalField(name="shop", hash_buckets=7),
        CategoricalField(
            name="tags",
            vocabulary=Vocabulary.of(("red", "7", "true")),
            multi=True,
            max_values=3,
            unknown="zero",
        ),
    )
)
NO_CONTEXT = Schema((BucketField(name="price", boundaries=(1.0, 10.0)),))
REJECTING = Schema(
    (
        BucketField(name="age", side="context", boundaries=(18.0,), missing="reject"),
        BucketField(name="price", boundaries=(1.0,), missing="reject"),
        CategoricalField(
            name="kind",
            vocabulary=Vocabulary.of(("a", "b")),
            missing="reject",
            unknown="reject",
        ),
        CategoricalField(
            name="tags",
            vocabulary=Vocabulary.of(("x", "y")),
            multi=True,
            max_values=2,
            unknown="reject",
        ),
    )
)


def write_bundle(
    folder: Path,
    schema: Schema = SCHEMA,
    shift: float = 0.0,
    graph_schema: Schema | None = None,
    seed: int = 0,
) -> Path:
    """A whole bundle at `folder` (ROOT/NAME/VERSION).

    Args:
        shift: added to every golden score.
        graph_schema: what the graph is made for, when not for `schema`.
        seed: of the weights.
    """
    folder.mkdir(parents=True)
    save_schema(schema, folder)
    model = linear_graph(graph_schema or schema, seed)
    onnx.save_model(
        model,
        str(folder / MODEL_FILE),
        save_as_external_data=True,
        location=MODEL_DATA_FILE,
        size_threshold=64,
    )
    requests = golden_requests(schema)
    for request in requests:
        logit = linear_logit(schema, request, seed)
        request |= {"logits": logit.tolist(), "scores": (1 / (1 + np.exp(-logit)) + shift).tolist()}
    (folder / GOLDEN_FILE).write_text(json.dumps({"tolerance": 1e-5, "requests": requests}))
    (folder / REFERENCE_FILE).write_text(json.dumps({"rows": 1, "counts": {}}))
    manifest = Manifest(
        name=folder.parent.name,
        version=int(folder.name),
        created="2026-01-01T00:00:00+00:00",
        spec_fingerprint="",
        data_fingerprint="",
        schema_fingerprint=fingerprint(schema),
        metrics={"uncalibrated": {"valid": {"auc": 0.75}}, "calibrated": {"valid": {}}},
        calibration={"method": "none"},
        precision="fp32",
        inputs=[given.name for given in model.graph.input],
        outputs=["logit", "score"],
    )
    write_manifest(folder, manifest)
    return folder


def linear_table(schema: Schema, seed: int = 0) -> NDArray[np.float32]:
    """The model's only weights: `[schema.size]`, every index another one."""
    return np.random.default_rng(seed).normal(size=schema.size).astype(np.float32)


def linear_logit(schema: Schema, request: dict[str, Any], seed: int = 0) -> NDArray[np.float32]:
    """What the graph computes for a /rank body: `[candidates]`."""
    rows = {"context": [request["context"]]}
    rows["candidate"] = [item["features"] for item in request["candidates"]]
    total = np.zeros(len(rows["candidate"]), np.float32)
    table = linear_table(schema, seed)
    for side in SIDES:
        encoder = Encoder(schema, side, schema.build_table())
        values = {f.name: [row.get(f.name) for row in rows[side]] for f in encoder.fields}
        columns, _ = encoder.columns_from_values(values)
        total = total + _weighted_sum(encoder.encode(columns, len(rows[side])), table)
    return total


def _weighted_sum(rows: Encoded, table: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = table[rows.index]
    total: NDArray[np.float32] = (weights if rows.weight is None else weights * rows.weight).sum(1)
    return total


def linear_graph(schema: Schema, seed: int = 0) -> onnx.ModelProto:
    """The graph of `linear_logit`, with the inputs that the bundle's contract gives."""
    nodes: list[NodeProto] = []
    inputs: list[ValueInfoProto] = []
    sums = []
    for side, rows in (("context", "R"), ("candidate", "N")):
        if not schema.side(side):  # type: ignore[arg-type]
            continue
        shape: list[str | int | None] = [rows, schema.slots(side)]  # type: ignore[arg-type]
        inputs.append(helper.make_tensor_value_info(side, TensorProto.INT64, shape))
        nodes.append(helper.make_node("Gather", ["linear", side], [f"{side}_all"]))
        used = f"{side}_all"
        if schema.is_weighted(side):  # type: ignore[arg-type]
            weight = f"{side}_weight"
            inputs.append(helper.make_tensor_value_info(weight, TensorProto.FLOAT, shape))
            nodes.append(helper.make_node("Mul", [used, weight], [f"{side}_used"]))
            used = f"{side}_used"
        nodes.append(helper.make_node("ReduceSum", [used, "axes"], [f"{side}_sum"], keepdims=0))
        sums.append(f"{side}_sum")
    if len(sums) == 2:
        inputs.append(helper.make_tensor_value_info("context_row", TensorProto.INT64, ["N"]))
        nodes.append(helper.make_node("Gather", [sums[0], "context_row"], ["gathered"]))
        nodes.append(helper.make_node("Add", ["gathered", sums[1]], ["logit"]))
    else:
        nodes.append(helper.make_node("Identity", [sums[0]], ["logit"]))
    nodes.append(helper.make_node("Sigmoid", ["logit"], ["score"]))
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("logit", "score")
    ]
    constants = [
        numpy_helper.from_array(linear_table(schema, seed), "linear"),
        numpy_helper.from_array(np.array([1]), "axes"),
    ]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

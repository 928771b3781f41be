"""A linear model small enough to check by hand: as a fake scorer, and as a real bundle."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.golden import golden_requests
from features.bundle import GOLDEN_FILE, MODEL_DATA_FILE, MODEL_FILE, REFERENCE_FILE
from features.bundle import Bundle, Manifest, write_manifest
from features.encode import Encoded, Encoder
from features.schema import SIDES, BucketField, CategoricalField, Schema, Side, ValueField
from features.schema_file import fingerprint, save_schema
from features.vocabulary import Vocabulary
from service.app import App
from service.scorer import Scorer

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


def linear_table(schema: Schema) -> NDArray[np.float32]:
    """The model's only weights: `[schema.size]`, every index another one."""
    return np.random.default_rng(0).normal(size=schema.size).astype(np.float32)


def linear_logit(
    schema: Schema, context: Encoded, candidate: Encoded, context_row: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What the tiny graph computes."""

    def part(rows: Encoded) -> NDArray[np.float32]:
        weights = linear_table(schema)[rows.index]
        if rows.weight is not None:
            weights = weights * rows.weight
        return weights.sum(1, dtype=np.float32)

    logit = part(candidate)
    return logit + part(context)[context_row] if schema.side("context") else logit


def manifest(schema: Schema, version: int = 1) -> Manifest:
    return Manifest(
        name="tiny",
        version=version,
        created="2026-01-01T00:00:00+00:00",
        spec_fingerprint="",
        data_fingerprint="",
        schema_fingerprint=fingerprint(schema),
        metrics={"uncalibrated": {"valid": {"auc": 0.75}}, "calibrated": {"valid": {}}},
        calibration={"method": "none"},
        precision="fp32",
        inputs=[],
        outputs=["logit", "score"],
    )


def write_bundle(
    folder: Path, schema: Schema = SCHEMA, shift: float = 0.0, graph_schema: Schema | None = None
) -> Path:
    """A whole bundle at `folder` (ROOT/tiny/VERSION).

    Args:
        shift: added to every golden score.
        graph_schema: what the graph is made for, when not for `schema`.
    """
    folder.mkdir(parents=True)
    save_schema(schema, folder)
    _write_graph(graph_schema or schema, folder)
    requests = [request | _expected(schema, request, shift) for request in golden_requests(schema)]
    (folder / GOLDEN_FILE).write_text(json.dumps({"tolerance": 1e-5, "requests": requests}))
    (folder / REFERENCE_FILE).write_text(json.dumps({"rows": 1, "counts": {}}))
    write_manifest(folder, manifest(schema, int(folder.name)))
    return folder


def _expected(schema: Schema, request: dict[str, Any], shift: float) -> dict[str, Any]:
    scorer = FakeScorer(schema)
    rows = {"context": [request["context"]]}
    rows["candidate"] = [item["features"] for item in request["candidates"]]
    encoded = {}
    for side in SIDES:
        encoder = scorer.encoders[side]
        columns, _ = encoder.columns_from_values(
            {field.name: [row.get(field.name) for row in rows[side]] for field in encoder.fields}
        )
        encoded[side] = encoder.encode(columns, len(rows[side]))
    count = len(rows["candidate"])
    logit, score = scorer.score(
        encoded["context"], encoded["candidate"], np.zeros(count, np.int64)
    )
    return {"logits": logit.tolist(), "scores": (score + np.float32(shift)).tolist()}


def _write_graph(schema: Schema, folder: Path) -> None:
    nodes, inputs, parts = [], [], []
    for side, rows in (("context", "R"), ("candidate", "N")):
        if not schema.side(side):  # type: ignore[arg-type]
            continue
        slots = schema.slots(side)  # type: ignore[arg-type]
        inputs.append(helper.make_tensor_value_info(side, TensorProto.INT64, [rows, slots]))
        nodes.append(helper.make_node("Gather", ["linear", side], [f"{side}_all"]))
        if schema.is_weighted(side):  # type: ignore[arg-type]
            name = f"{side}_weight"
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, slots]))
            nodes.append(helper.make_node("Mul", [f"{side}_all", name], [f"{side}_used"]))
        else:
            nodes.append(helper.make_node("Identity", [f"{side}_all"], [f"{side}_used"]))
        nodes.append(
            helper.make_node("ReduceSum", [f"{side}_used", "axes"], [f"{side}_sum"], keepdims=0)
        )
        parts.append(f"{side}_sum")
    if len(parts) == 2:
        inputs.append(helper.make_tensor_value_info("context_row", TensorProto.INT64, ["N"]))
        nodes.append(helper.make_node("Gather", ["context_sum", "context_row"], ["gathered"]))
        nodes.append(helper.make_node("Add", ["gathered", "candidate_sum"], ["logit"]))
    else:
        nodes.append(helper.make_node("Identity", ["candidate_sum"], ["logit"]))
    nodes.append(helper.make_node("Sigmoid", ["logit"], ["score"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in ("logit", "score")],
        [
            numpy_helper.from_array(linear_table(schema), "linear"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(
        model,
        str(folder / MODEL_FILE),
        save_as_external_data=True,
        location=MODEL_DATA_FILE,
        size_threshold=0,
    )

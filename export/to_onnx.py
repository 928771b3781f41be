"""`export.graph.BundleGraph` -> `model.onnx`, weights in `model.onnx.data`, row counts dynamic."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from export.graph import BundleGraph
from features.bundle import MODEL_DATA_FILE, MODEL_FILE
from features.schema import Schema

OUTPUTS = ["logit", "score"]
# Any two sizes but 0 and 1, which the exporter would take for constants.
_EXAMPLE_CONTEXTS, _EXAMPLE_CANDIDATES = 2, 3


def write_onnx(graph: BundleGraph, schema: Schema, folder: Path) -> list[str]:
    """Write the graph's two files into `folder`.

    Returns:
        Names of its inputs, as docs/bundle.md has them.
    """
    inputs = example_inputs(schema)
    rows = {"context": Dim("R"), "candidate": Dim("N")}
    dynamic = {
        name: {0: rows["context" if name in ("context", "context_weight") else "candidate"]}
        for name in inputs
    }
    absent = dict.fromkeys({"context", "context_row"} - inputs.keys())
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter warns of its own internals, which nobody here can act on.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph.eval(),
            (),
            kwargs=inputs | absent,
            dynamic_shapes=dynamic | absent,
            input_names=list(inputs),
            output_names=OUTPUTS,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    _name_rows(model)
    _drop_traces(model)
    save_graph(model, folder)
    return list(inputs)


def save_graph(model: onnx.ModelProto, folder: Path) -> None:
    """Write a graph as a bundle holds it: the tables in a file of their own, to be mapped."""
    onnx.save_model(
        model,
        str(folder / MODEL_FILE),
        save_as_external_data=True,
        location=MODEL_DATA_FILE,
        size_threshold=1024,
    )


def _name_rows(model: onnx.ModelProto) -> None:
    """Call the row counts R and N again: without context inputs the exporter invents names."""
    names = {}
    for given in model.graph.input:
        found = given.type.tensor_type.shape.dim[0].dim_param
        names[found] = "R" if given.name in ("context", "context_weight") else "N"
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def _drop_traces(model: onnx.ModelProto) -> None:
    """Forget where in our source each node came from: a bundle holds no path of a machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info,
                 *graph.initializer):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def example_inputs(schema: Schema) -> dict[str, torch.Tensor]:
    """Inputs of the graph for a few rows, all first indices and weight 1."""
    contexts, candidates = _EXAMPLE_CONTEXTS, _EXAMPLE_CANDIDATES
    has_context = bool(schema.side("context"))
    inputs: dict[str, torch.Tensor] = {}
    if has_context:
        inputs["context"] = torch.zeros(contexts, schema.slots("context"), dtype=torch.int64)
    inputs["candidate"] = torch.zeros(candidates, schema.slots("candidate"), dtype=torch.int64)
    if has_context:
        inputs["context_row"] = torch.zeros(candidates, dtype=torch.int64)
    if has_context and schema.is_weighted("context"):
        inputs["context_weight"] = torch.ones(contexts, schema.slots("context"))
    if schema.is_weighted("candidate"):
        inputs["candidate_weight"] = torch.ones(candidates, schema.slots("candidate"))
    return inputs

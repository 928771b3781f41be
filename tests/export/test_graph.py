from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph import BundleGraph, CalibrationLayer, folded_layers
from export.parity import network_logit
from features.encode import Encoded
from features.schema import Schema
from model.calibrate import CLIP, Calibration
from tests.export.networks import CALIBRATIONS, CONFIGS, SCHEMAS, build, rows_of


def run(
    graph: BundleGraph, schema: Schema, context: Encoded, candidate: Encoded, row: list[int]
) -> Tensor:
    def tensor(array: NDArray[Any] | None) -> Tensor | None:
        return None if array is None else torch.from_numpy(array)

    has_context = bool(schema.side("context"))
    with torch.inference_mode():
        logit, _ = graph(
            tensor(context.index) if has_context else None,
            torch.from_numpy(candidate.index),
            torch.tensor(row) if has_context else None,
            tensor(context.weight) if has_context else None,
            tensor(candidate.weight),
        )
    assert isinstance(logit, Tensor)
    return logit


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_graph_computes_what_the_network_computes(name: str, config: str, precision: str) -> None:
    """Candidates of three contexts in any order, against the network on the joined rows."""
    schema = SCHEMAS[name]
    network = build(schema, CONFIGS[config])
    context, candidate = rows_of(schema, "context", 3), rows_of(schema, "candidate", 20)
    row = np.random.default_rng(0).integers(0, 3, 20)
    joined = Encoded(context.index[row], None if context.weight is None else context.weight[row])
    graph = BundleGraph(network, schema, CALIBRATIONS["none"], precision)
    logit = run(graph, schema, context, candidate, row.tolist())
    expected = network_logit(network, joined, candidate)
    np.testing.assert_allclose(logit.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_is_folded_into_the_layer_before_it() -> None:
    deep = build(SCHEMAS["plain"], CONFIGS["batch norm"]).deep
    layers = folded_layers(deep)
    assert all(type(layer) is nn.Linear for layer in layers)
    rows = torch.randn(9, layers[0].in_features, generator=torch.Generator().manual_seed(1))
    hidden = layers[0](rows)
    for layer in layers[1:]:
        hidden = layer(torch.relu(hidden))
    torch.testing.assert_close(hidden, deep(rows), rtol=1e-4, atol=1e-5)


def test_graph_leaves_the_network_as_it_was() -> None:
    """Parity is measured against it afterwards."""
    schema = SCHEMAS["weighted"]
    network = build(schema, CONFIGS["batch norm"])
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    BundleGraph(network, schema, CALIBRATIONS["none"])
    assert all(torch.equal(before[name], w) for name, w in network.state_dict().items())


@pytest.mark.parametrize("name", ["plain", "weighted context"])
def test_embedding_and_linear_weight_of_an_index_lie_together(name: str) -> None:
    """Half the squares in with the weight, but where something may multiply the embedding."""
    schema = SCHEMAS[name]
    network = build(schema)
    table = BundleGraph(network, schema, CALIBRATIONS["none"]).table.weight
    embedding, linear = network.embedding.weight, network.linear.weight
    assert torch.equal(table[:, :-1], embedding)
    is_plain = torch.tensor(
        [not schema.is_weighted(f.side) for f in schema.fields for _ in schema.ranges[f.name]]
    )
    expected = linear[:, 0] - 0.5 * (embedding**2).sum(1) * is_plain
    torch.testing.assert_close(table[:, -1], expected)


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_calibration_in_the_graph_is_the_fitted_one(name: str) -> None:
    calibration = CALIBRATIONS[name]
    logit = np.r_[np.linspace(-40, 40, 4001), calibration.knots].astype(np.float32)
    score = CalibrationLayer(calibration)(torch.from_numpy(logit)).numpy()
    np.testing.assert_allclose(score, calibration.score(logit), atol=1e-6)


@pytest.mark.parametrize("method", ["none", "platt"])
def test_score_is_clipped_in_the_graph_too(method: str) -> None:
    score = CalibrationLayer(Calibration(method))(torch.tensor([-1e4, 1e4]))  # type: ignore[arg-type]
    np.testing.assert_allclose(score.numpy(), [CLIP, 1 - CLIP], rtol=1e-6)

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from export.parity import Graph, network_logit
from features.bundle import MODEL_DATA_FILE, MODEL_FILE
from features.encode import Encoded
from features.schema import SIDES, CategoricalField, Schema
from model.deepfm import DeepFM
from tests.export.networks import CALIBRATIONS, CONFIGS, SCHEMAS, build, exported, rows_of

INPUTS = {
    "plain": {"context", "candidate", "context_row"},
    "weighted": {"context", "candidate", "context_row", "context_weight", "candidate_weight"},
    "weighted context": {"context", "candidate", "context_row", "context_weight"},
    "no context": {"candidate"},
    "no context, weighted": {"candidate", "candidate_weight"},
    "without embedding": {"context", "candidate", "context_row"},
}
# Each schema with another network and calibration, so that all of them are exported once.
PAIRED = {
    "plain": ("deep", "isotonic"),
    "weighted": ("batch norm", "platt"),
    "weighted context": ("one layer", "none"),
    "no context": ("deep", "shifted"),
    "no context, weighted": ("no layer", "none"),
    "without embedding": ("deep", "isotonic of one knot"),
}
TOLERANCE = 1e-5


class Exported:
    """One network, its graph and where that lies."""

    def __init__(self, name: str, folder: Path) -> None:
        config, calibration = PAIRED[name]
        self.name, self.folder = name, folder
        self.schema: Schema = SCHEMAS[name]
        self.calibration = CALIBRATIONS[calibration]
        self.network: DeepFM = build(self.schema, CONFIGS[config])
        self.graph: Graph
        self.graph, self.inputs = exported(folder, self.network, self.schema, self.calibration)


@pytest.fixture(scope="module", params=PAIRED)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(request.param, tmp_path_factory.mktemp("graph"))


def assert_same(
    subject: Exported, context: Encoded, candidate: Encoded, row: NDArray[np.int64]
) -> None:
    """Logits and scores of the graph, against the network on the joined rows."""
    weight = None if context.weight is None else context.weight[row]
    expected = network_logit(subject.network, Encoded(context.index[row], weight), candidate)
    logit, score = subject.graph.run(context, candidate, row)
    assert logit.dtype == score.dtype == np.float32
    assert logit.shape == score.shape == (len(row),)
    np.testing.assert_allclose(logit, expected, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(score, subject.calibration.score(expected), atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_every_row_with_its_own_context(subject: Exported, rows: int) -> None:
    """R = N, as /score asks; a thousand rows hold every index of every field."""
    context = rows_of(subject.schema, "context", rows, seed=1)
    candidate = rows_of(subject.schema, "candidate", rows, seed=2)
    assert_same(subject, context, candidate, np.arange(rows))


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
def test_all_rows_with_one_context(subject: Exported, rows: int) -> None:
    """R = 1, as /rank asks."""
    context = rows_of(subject.schema, "context", 1, seed=1)
    candidate = rows_of(subject.schema, "candidate", rows, seed=2)
    assert_same(subject, context, candidate, np.zeros(rows, np.int64))


def test_joined_requests_with_a_context_each(subject: Exported) -> None:
    context = rows_of(subject.schema, "context", 3)
    candidate = rows_of(subject.schema, "candidate", 7)
    assert_same(subject, context, candidate, np.array([2, 0, 0, 1, 2, 1, 0]))


def test_rows_hold_every_index_of_every_field(subject: Exported) -> None:
    """Else the tests above would promise less than they say; the reserved ones are among them."""
    seen = {
        index
        for side in SIDES
        for index in rows_of(subject.schema, side, 1000).index.ravel().tolist()
    }
    assert seen == set(range(subject.schema.size))


def test_inputs_are_those_of_the_contract(subject: Exported) -> None:
    given = {one.name: one for one in subject.graph.session.get_inputs()}
    assert set(given) == set(subject.inputs) == INPUTS[subject.name]
    for name, one in given.items():
        assert one.type == ("tensor(float)" if name.endswith("_weight") else "tensor(int64)")
        side = name.removesuffix("_weight")
        dimension = "R" if side == "context" else "N"
        slots = [] if name == "context_row" else [subject.schema.slots(side)]
        assert one.shape == [dimension, *slots]


def test_outputs_are_logit_and_score(subject: Exported) -> None:
    outputs = [(one.name, one.type) for one in subject.graph.session.get_outputs()]
    assert outputs == [("logit", "tensor(float)"), ("score", "tensor(float)")]


def test_no_batch_norm_and_no_training_node_is_left(subject: Exported) -> None:
    nodes = onnx.load(subject.folder / MODEL_FILE, load_external_data=False).graph.node
    assert not {node.op_type for node in nodes} & {"BatchNormalization", "Dropout"}


def test_two_files_are_written_and_the_table_lies_in_the_second(tmp_path: Path) -> None:
    """Only external data is memory-mapped and shared between workers."""
    schema = Schema((CategoricalField(name="item", hash_buckets=5000),))
    network = build(schema)
    exported(tmp_path, network, schema, CALIBRATIONS["none"])
    assert {path.name for path in tmp_path.iterdir()} == {MODEL_FILE, MODEL_DATA_FILE}
    assert (tmp_path / MODEL_DATA_FILE).stat().st_size >= 5000 * 5 * 4
    assert (tmp_path / MODEL_FILE).stat().st_size < 5000 * 4


def test_each_index_is_looked_up_once(subject: Exported) -> None:
    """A look-up is little but the wait for memory, so there is one for embedding and weight."""
    graph = onnx.load(subject.folder / MODEL_FILE, load_external_data=False).graph
    looked_up = [node.input[0] for node in graph.node if node.op_type == "Gather"]
    sides = len({"context", "candidate"} & {given.name for given in graph.input})
    assert looked_up.count("table.weight") == sides

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.graph import BundleGraph
from export.parity import CHECKED_ROWS, TOLERANCE, Graph, check_parity, split_sides
from export.to_onnx import write_onnx
from features.bundle import MODEL_FILE
from features.errors import ParityError
from model.calibrate import Calibration
from model.run import Run, load_run

NONE = Calibration("none")


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return load_run(run_folder)


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    write_onnx(BundleGraph(run.network, run.schema, NONE), run.schema, folder)
    return folder


@pytest.fixture(scope="module")
def graph(run: Run, folder: Path) -> Graph:
    return Graph(folder / MODEL_FILE, run.schema)


def test_the_sizes_that_exporters_freeze_are_checked() -> None:
    assert CHECKED_ROWS == (1, 2, 7, 1000)


def test_an_exact_graph_passes(run: Run, graph: Graph) -> None:
    sides = split_sides(run.schema, run.sample_index, run.sample_weight)
    assert check_parity(graph, run.network, NONE, *sides) <= TOLERANCE


def test_a_damaged_network_is_told_by_row_and_scores(run: Run, graph: Graph) -> None:
    sides = split_sides(run.schema, run.sample_index, run.sample_weight)
    before = run.network.bias.detach().clone()
    with torch.no_grad():
        run.network.bias.add_(1e-3)
    try:
        with pytest.raises(ParityError, match=r"row 0 scores 0\.\d+ with ONNX Runtime and 0\.\d+"):
            check_parity(graph, run.network, NONE, *sides)
    finally:
        with torch.no_grad():
            run.network.bias.copy_(before)


@pytest.mark.parametrize(("damage", "found"), [(0.01, r"0\.\d+"), (float("nan"), "nan")])
def test_a_damaged_graph_is_told_by_row_and_scores(
    run: Run, folder: Path, tmp_path: Path, damage: float, found: str
) -> None:
    """One altered weight of the last layer: the message says in which row it shows."""
    model = onnx.load(folder / MODEL_FILE)
    (bias,) = (one for one in model.graph.initializer if one.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array(damage, np.float32), "bias"))
    onnx.save(model, tmp_path / "damaged.onnx")
    sides = split_sides(run.schema, run.sample_index, run.sample_weight)
    with pytest.raises(ParityError, match=rf"row \d+ scores {found} with ONNX Runtime and 0\.\d+"):
        check_parity(Graph(tmp_path / "damaged.onnx", run.schema), run.network, NONE, *sides)


def test_a_score_that_is_no_number_is_told(run: Run, graph: Graph) -> None:
    sides = split_sides(run.schema, run.sample_index, run.sample_weight)
    before = run.network.bias.detach().clone()
    with torch.no_grad():
        run.network.bias.fill_(float("nan"))
    try:
        with pytest.raises(ParityError, match="with PyTorch"):
            check_parity(graph, run.network, NONE, *sides)
    finally:
        with torch.no_grad():
            run.network.bias.copy_(before)


def test_splitting_keeps_slots_and_leaves_unweighted_sides_without_weights(run: Run) -> None:
    context, candidate = split_sides(run.schema, run.sample_index, run.sample_weight)
    assert context.index.shape[1] == run.schema.slots("context")
    joined = np.concatenate([context.index, candidate.index], 1)
    np.testing.assert_array_equal(joined, run.sample_index)

from __future__ import annotations

import pickle
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from features.errors import DeepFMError
from features.schema_file import fingerprint, load_schema
from model.config import configs
from model.rows import Rows
from model.run import load_run, save_run
from model.train import predict


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's run folder, to be damaged."""
    return copytree(run_folder, tmp_path / "run")


def test_loaded_run_is_the_saved_one(run_folder: Path, tmp_path: Path) -> None:
    """Written again, every file is the same to the byte."""
    run = load_run(run_folder)
    save_run(run, tmp_path, *configs(run.spec))
    names = {path.name for path in run_folder.iterdir()} - {"report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (run_folder / name).read_bytes(), name


def test_loaded_network_scores_as_the_trained_one(run_folder: Path) -> None:
    """The sample holds training rows; the saved validation logits give the saved AUC."""
    run = load_run(run_folder)
    assert not run.network.training
    label = np.zeros(len(run.sample_index), np.float32)
    logit = predict(run.network, Rows(run.sample_index, run.sample_weight, label, None, None))
    assert np.isfinite(logit).all()
    assert len(run.sample_index) == min(run.rows, 4096)
    assert run.valid.group is not None
    assert len(run.valid.logit) == len(run.valid.label) == len(run.valid.group) == 120


def test_schema_in_the_run_is_the_one_trained_with(run_folder: Path) -> None:
    run = load_run(run_folder)
    assert fingerprint(run.schema) == fingerprint(load_schema(run_folder)[0])
    assert run.network.wide is not None
    tables = (run.network.linear.weight, run.network.wide.weight)
    assert sum(map(len, tables)) == run.schema.size == len(run.counts)


def test_no_file_is_a_pickle(run_folder: Path) -> None:
    for path in run_folder.iterdir():
        assert path.suffix in (".json", ".npy", ".safetensors", ".html")
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError)):
            pickle.loads(path.read_bytes())


def test_pickled_array_is_not_loaded(copy: Path) -> None:
    np.save(copy / "valid.logit.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DeepFMError, match="not a whole run folder"):
        load_run(copy)


def test_absent_folder_is_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(DeepFMError, match="absent: no such run folder"):
        load_run(tmp_path / "absent")


def test_another_folder_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(DeepFMError, match=r"not a run folder: it has no spec\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "weights.safetensors",
        "schema.json",
        "table.npy",
        "spec.json",
        "metrics.json",
        "reference.json",
        "valid.logit.npy",
        "sample.index.npy",
        "sample.weight.npy",
    ],
)
@pytest.mark.parametrize("damage", ["absent", "cut", "empty"])
def test_damaged_run_folder_is_refused_with_a_sentence(copy: Path, name: str, damage: str) -> None:
    file = copy / name
    if damage == "absent":
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(DeepFMError) as caught:
        load_run(copy)
    assert str(copy) in caught.value.message
    assert "\n" not in caught.value.message


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    text = (copy / "spec.json").read_text()
    (copy / "spec.json").write_text(text.replace('"embedding_dim": 4', '"embedding_dim": 5'))
    with pytest.raises(DeepFMError, match=r"not a whole run folder: .*size mismatch") as caught:
        load_run(copy)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("document", ["[]", "{}", "1"])
@pytest.mark.parametrize("name", ["spec.json", "reference.json"])
def test_json_of_another_shape_is_refused(copy: Path, name: str, document: str) -> None:
    (copy / name).write_text(document)
    with pytest.raises(DeepFMError):
        load_run(copy)

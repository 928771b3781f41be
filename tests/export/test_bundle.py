from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import bundle as exporting
from export.bundle import export_run, next_version
from features.bundle import open_bundle
from features.errors import ConfigError, DataError, DeepFMError, OutputError, ParityError


def test_a_bundle_holds_what_the_contract_names(bundle_path: Path) -> None:
    names = {file.name for file in bundle_path.iterdir()}
    assert {"manifest.json", "schema.json", "model.onnx", "model.onnx.data"} <= names
    assert {"golden.json", "reference.json"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pt"))]
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("tiny", 3)
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert set(manifest["metrics"]) == {"uncalibrated", "calibrated"}
    assert manifest["metrics"]["uncalibrated"]["valid"]["auc"] > 0.5
    assert manifest["outputs"] == ["logit", "score"]


def test_calibration_improves_the_validation_log_loss(bundle_path: Path) -> None:
    metrics = open_bundle(bundle_path).manifest.metrics
    losses = [metrics[name]["valid"]["log_loss"] for name in ("calibrated", "uncalibrated")]
    # Platt draws his targets towards the middle: a little is lost where nothing can be gained.
    assert losses[0] <= losses[1] + 1e-3


def test_manifest_holds_the_reliability_before_and_after(bundle_path: Path) -> None:
    manifest = open_bundle(bundle_path).manifest
    for scale in ("uncalibrated", "calibrated"):
        curve = manifest.reliability[scale]["valid"]
        predicted, observed, rows = (
            np.array(curve[name]) for name in ("predicted", "observed", "rows")
        )
        assert rows.sum() == 120
        assert (np.diff(predicted) > 0).all()
        distance = np.average(np.abs(predicted - observed), weights=rows)
        assert distance == pytest.approx(manifest.metrics[scale]["valid"]["ece"], abs=1e-5)
    assert manifest.reliability["calibrated"] != manifest.reliability["uncalibrated"]


def test_reference_counts_are_those_of_the_training_rows(bundle_path: Path) -> None:
    reference = open_bundle(bundle_path).reference
    single = reference["counts"]["item"]
    assert sum(single) == reference["rows"]


def test_versions_count_on_by_themselves(
    run_folder: Path,
    tmp_path: Path,
    copied_graph: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "write_onnx", copied_graph)
    monkeypatch.chdir(tmp_path)
    assert next_version(Path("bundles/tiny")).name == "1"
    assert export_run(run_folder) == tmp_path / "bundles" / "tiny" / "1"
    assert export_run(run_folder) == tmp_path / "bundles" / "tiny" / "2"


def test_the_manifest_knows_where_lists_of_csv_are_cut(
    run_folder: Path,
    tmp_path: Path,
    copied_graph: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "write_onnx", copied_graph)
    run = shutil.copytree(run_folder, tmp_path / "run")
    spec = json.loads((run / "spec.json").read_text())
    spec["data"]["list_separator"] = ";"
    (run / "spec.json").write_text(json.dumps(spec))
    assert open_bundle(export_run(run, tmp_path / "m" / "1")).manifest.list_separator == ";"


def test_an_existing_version_is_refused(run_folder: Path, bundle_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        export_run(run_folder, bundle_path)


@pytest.mark.parametrize("name", ["latest", "0", "01", "-1", "²", "٣"])
def test_a_version_is_an_integer(run_folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must be a version"):
        export_run(run_folder, tmp_path / "m" / name)


def test_a_failing_export_leaves_nothing_behind(
    run_folder: Path,
    tmp_path: Path,
    copied_graph: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differ(*_: object) -> float:
        raise ParityError("row 0 differs")

    monkeypatch.setattr(exporting, "write_onnx", copied_graph)
    monkeypatch.setattr(exporting, "check_parity", differ)
    with pytest.raises(ParityError):
        export_run(run_folder, tmp_path / "m" / "1")
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())


def test_a_run_is_enough_to_export_from(
    run_folder: Path, bundle_path: Path, tmp_path: Path
) -> None:
    """The log is not read again: a copy elsewhere exports the same model."""
    shutil.copytree(run_folder, tmp_path / "moved")
    moved = export_run(tmp_path / "moved", tmp_path / "m" / "1")
    assert open_bundle(moved).golden == open_bundle(bundle_path).golden


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a run folder: it has no spec\.json"):
        export_run(tmp_path, tmp_path / "m" / "1")


def test_every_file_bears_its_checksum(bundle_path: Path) -> None:
    manifest = json.loads((bundle_path / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((bundle_path / name).read_bytes()).hexdigest() == digest


def test_uncalibrated_metrics_are_the_runs(run_folder: Path, bundle_path: Path) -> None:
    trained = json.loads((run_folder / "metrics.json").read_text())["valid"]
    exported = open_bundle(bundle_path).manifest.metrics["uncalibrated"]["valid"]
    assert exported == pytest.approx(trained, rel=1e-9)


def test_files_are_whole_json_without_nan(bundle_path: Path) -> None:
    for file in bundle_path.glob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


def test_precision_that_cannot_be_exported_is_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="precision 'int4' cannot be exported"):
        export_run(run_folder, tmp_path / "m" / "1", precision="int4")


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "schema.json", "spec.json", "reference.json", "valid.logit.npy"]
)
def test_a_broken_run_is_refused_with_a_sentence_and_leaves_nothing(
    run_folder: Path, tmp_path: Path, name: str
) -> None:
    broken = shutil.copytree(run_folder, tmp_path / "run")
    (broken / name).write_bytes(b"")
    with pytest.raises(DeepFMError) as caught:
        export_run(broken, tmp_path / "m" / "1")
    assert str(broken) in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "m").exists()

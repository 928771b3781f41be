from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.bundle import (
    BUNDLE_FORMAT,
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_DATA_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    Manifest,
    open_bundle,
    versions,
    write_manifest,
)
from features.errors import BundleError
from features.schema import BucketField, Schema
from features.schema_file import SCHEMA_FILE, TABLE_FILE, fingerprint, save_schema

SCHEMA = Schema((BucketField(name="age", boundaries=(18.0, 30.0)),))
OTHER = Schema((BucketField(name="age", boundaries=(18.0, 31.0)),))


def manifest_of(folder: Path, schema: Schema = SCHEMA) -> Manifest:
    return Manifest(
        name=folder.parent.name,
        version=int(folder.name),
        created="2026-01-01T00:00:00+00:00",
        spec_fingerprint="a",
        data_fingerprint="b",
        schema_fingerprint=fingerprint(schema),
        metrics={"uncalibrated": {"valid": {"auc": 0.75}}, "calibrated": {"valid": {}}},
        calibration={"method": "none"},
        precision="fp32",
        inputs=["candidate", "context_row"],
        outputs=["logit", "score"],
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle whose graph is no graph: this file never reads it."""
    folder = tmp_path / "ctr" / "3"
    folder.mkdir(parents=True)
    save_schema(SCHEMA, folder)
    (folder / MODEL_FILE).write_bytes(b"graph" * 100)
    (folder / MODEL_DATA_FILE).write_bytes(b"weights" * 100)
    (folder / GOLDEN_FILE).write_text('{"tolerance": 1e-5, "requests": []}')
    (folder / REFERENCE_FILE).write_text('{"rows": 1, "counts": {}}')
    write_manifest(folder, manifest_of(folder))
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((path / MANIFEST_FILE).read_text())
    change(document)
    (path / MANIFEST_FILE).write_text(json.dumps(document))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    return caught.value.message


def test_a_manifest_without_a_reliability_curve_opens(path: Path) -> None:
    """Bundles of the first version have none."""
    edit(path, lambda document: document.pop("reliability"))
    assert open_bundle(path).manifest.reliability == {}


def test_a_whole_bundle_opens(path: Path) -> None:
    bundle = open_bundle(path)
    assert bundle.schema == SCHEMA
    assert (bundle.manifest.name, bundle.manifest.version) == ("ctr", 3)
    assert bundle.manifest.metrics["uncalibrated"]["valid"]["auc"] == 0.75
    assert bundle.model_path == path / MODEL_FILE
    assert bundle.golden == {"tolerance": 1e-5, "requests": []}
    assert bundle.reference == {"rows": 1, "counts": {}}


def test_the_manifest_lists_every_other_file(path: Path) -> None:
    listed = json.loads((path / MANIFEST_FILE).read_text())["files"]
    assert listed.keys() | {MANIFEST_FILE} == {file.name for file in path.iterdir()}
    assert all(len(digest) == 64 for digest in listed.values())


def test_no_file_is_a_pickle(path: Path) -> None:
    assert {file.suffix for file in path.iterdir()} == {".json", ".npy", ".onnx", ".data"}


@pytest.mark.parametrize(
    "name",
    [MODEL_FILE, MODEL_DATA_FILE, GOLDEN_FILE, REFERENCE_FILE, SCHEMA_FILE, TABLE_FILE],
)
def test_a_truncated_file_is_refused(path: Path, name: str) -> None:
    (path / name).write_bytes((path / name).read_bytes()[:-1])
    assert f"{name}: its SHA-256 is not the one in the manifest" in refusal(path)


def test_a_changed_byte_is_refused(path: Path) -> None:
    content = bytearray((path / MODEL_DATA_FILE).read_bytes())
    content[50] ^= 1
    (path / MODEL_DATA_FILE).write_bytes(content)
    assert "SHA-256" in refusal(path)


@pytest.mark.parametrize("name", [MODEL_FILE, MODEL_DATA_FILE, TABLE_FILE])
def test_a_missing_file_is_refused(path: Path, name: str) -> None:
    (path / name).unlink()
    assert f"{name}: missing" in refusal(path)


@pytest.mark.parametrize("name", [MODEL_FILE, GOLDEN_FILE, REFERENCE_FILE, SCHEMA_FILE])
def test_what_serving_needs_must_be_listed(path: Path, name: str) -> None:
    (path / name).unlink()
    edit(path, lambda document: document["files"].pop(name))
    assert f"does not list {name}" in refusal(path)


def test_an_unlisted_file_is_refused(path: Path) -> None:
    (path / "extra.bin").write_bytes(b"x")
    assert "holds extra.bin, which the manifest does not list" in refusal(path)


def test_a_symbolic_link_is_refused_though_its_content_is_right(path: Path) -> None:
    elsewhere = path.parent / "weights"
    (path / MODEL_DATA_FILE).rename(elsewhere)
    (path / MODEL_DATA_FILE).symlink_to(elsewhere)
    assert "not a regular file" in refusal(path)


def test_a_folder_in_place_of_a_file_is_refused(path: Path) -> None:
    (path / MODEL_DATA_FILE).unlink()
    (path / MODEL_DATA_FILE).mkdir()
    assert "not a regular file" in refusal(path)


@pytest.mark.parametrize(
    "name", ["../weights", "/etc/passwd", "a/b", "..", ".", "", "sub/../x", "a\\..\\b\0/x"]
)
def test_a_listed_name_that_leaves_the_folder_is_refused(path: Path, name: str) -> None:
    edit(path, lambda document: document["files"].update({name: "0" * 64}))
    assert "leaves the folder" in refusal(path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000], ids=["nul", "long"])
def test_a_listed_name_that_no_file_can_have_is_refused(path: Path, name: str) -> None:
    edit(path, lambda document: document["files"].update({name: "0" * 64}))
    refusal(path)


@pytest.mark.parametrize("found", [BUNDLE_FORMAT + 1, None, "1"])
def test_another_format_version_is_refused(path: Path, found: Any) -> None:
    edit(path, lambda document: document.update(format=found))
    assert f"bundle format {found}, this version reads 1 and {BUNDLE_FORMAT}" in refusal(path)


def test_a_bundle_of_format_1_is_read(path: Path) -> None:
    edit(path, lambda document: document.update(format=1))
    assert open_bundle(path).manifest.format == 1


def test_a_version_other_than_the_folders_is_refused(path: Path) -> None:
    moved = path.rename(path.parent / "4")
    assert "the manifest says version 3" in refusal(moved)


def test_a_schema_other_than_the_manifests_is_refused(path: Path) -> None:
    save_schema(OTHER, path)
    write_manifest_again(path)
    assert "not the schema that the manifest names" in refusal(path)


def write_manifest_again(path: Path) -> None:
    (path / MANIFEST_FILE).unlink()
    write_manifest(path, manifest_of(path))


def test_an_unreadable_schema_is_refused(path: Path) -> None:
    (path / SCHEMA_FILE).write_text("[]")
    write_manifest_again(path)
    assert "the schema cannot be read" in refusal(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"format": 1}', "\xff"])
def test_a_manifest_that_is_none_is_refused(path: Path, content: str) -> None:
    (path / MANIFEST_FILE).write_bytes(content.encode("latin-1"))
    assert MANIFEST_FILE in refusal(path)


@pytest.mark.parametrize(
    ("key", "value"), [("version", "3"), ("files", ["model.onnx"]), ("metrics", {"auc": 0.5})]
)
def test_a_manifest_of_wrong_types_names_the_place(path: Path, key: str, value: Any) -> None:
    edit(path, lambda document: document.update({key: value}))
    assert f"$.{key}" in refusal(path)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").endswith("none: no bundle: it has no manifest.json")
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    assert refusal(tmp_path).endswith(f"; the newest version in it is {tmp_path / '2'}")


@pytest.mark.parametrize("name", [GOLDEN_FILE, REFERENCE_FILE])
def test_a_listed_file_that_is_no_json_object_is_refused_when_read(path: Path, name: str) -> None:
    (path / name).write_text("[]")
    write_manifest_again(path)
    bundle = open_bundle(path)
    with pytest.raises(BundleError, match="not a JSON object"):
        _ = bundle.golden if name == GOLDEN_FILE else bundle.reference


def test_versions_are_positive_integers_in_order(tmp_path: Path) -> None:
    for name in ("10", "2", "0", "-1", "01", ".3.tmp", "latest", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert versions(tmp_path) == [2, 10]


def test_versions_of_an_absent_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none: cannot be read"):
        versions(tmp_path / "none")

"""The bundle: the folder `ROOT/NAME/VERSION/` that is all that crosses from offline to online.

Rules:
- It is written as `features.atomic.new_folder`: a folder with an integer name is complete. It is
  never modified afterwards: its files are memory-mapped.
- `manifest.json` names every other file with its SHA-256. A file that is not listed, a link, or a
  name with a path in it is refused. Only the manifest's own signature, where there is one, is not
  listed: it comes after the manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from features.errors import BundleError, SchemaError
from features.schema import Schema
from features.schema_file import fingerprint, load_schema
from features.signature import SIGNATURE_FILE, TrustedKeys, sign
from features.table import HashTable

BUNDLE_FORMAT = 2
# Format 1 knew no crosses.
_READABLE_FORMATS = (1, 2)
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
MODEL_DATA_FILE = "model.onnx.data"
GOLDEN_FILE = "golden.json"
REFERENCE_FILE = "reference.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    Args:
        created: UTC time of export, ISO 8601.
        metrics: {"uncalibrated": {"valid": {...}, "test": {...}}, "calibrated": {the same}}.
        calibration: the fitted map from logit to score, by name, with its parameters.
        reliability: by scale and part as `metrics`, lists over buckets of rows by score:
            {"predicted", "observed", "rows"}; empty in bundles of versions that measured none.
        inputs: names of the graph's inputs.
        comparison: for int8, metrics of both precisions on the same rows: {"rows", "fp32", "int8"}.
        outputs: names of the graph's outputs.
        list_separator: between the values of a multi field in CSV and TSV, as the spec has it.
        files: SHA-256, in hex, of every file but the manifest.
    """

    name: str
    version: int
    created: str
    spec_fingerprint: str
    data_fingerprint: str
    schema_fingerprint: str
    metrics: dict[str, dict[str, dict[str, float]]]
    calibration: dict[str, Any]
    precision: str
    inputs: list[str]
    outputs: list[str]
    list_separator: str = "|"
    comparison: dict[str, Any] | None = None
    reliability: dict[str, dict[str, dict[str, list[float]]]] = dataclasses.field(
        default_factory=dict
    )
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    format: int = BUNDLE_FORMAT


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked against its manifest."""

    path: Path
    manifest: Manifest
    schema: Schema
    table: HashTable

    @property
    def is_signed(self) -> bool:
        """Whether a signature lies in it, right or wrong."""
        return (self.path / SIGNATURE_FILE).is_file()

    @property
    def model_path(self) -> Path:
        """The ONNX graph; its external data lies beside it."""
        return self.path / MODEL_FILE

    @cached_property
    def golden(self) -> dict[str, Any]:
        """Requests with the scores they must get: {"tolerance", "requests": [...]}."""
        return _read_json(self.path / GOLDEN_FILE)

    @cached_property
    def reference(self) -> dict[str, Any]:
        """Training counts per index: {"rows", "counts": {field: [...]}}."""
        return _read_json(self.path / REFERENCE_FILE)


def open_bundle(path: Path, trusted: TrustedKeys | None = None) -> Bundle:
    """Bundle at `ROOT/NAME/VERSION`, every file checked.

    Args:
        path: the folder.
        trusted: keys, one of which must have signed it; None asks for no signature.

    Raises:
        BundleError: a file is missing, altered, unlisted or a link, the format is another one, the
            schema is not the one the manifest names, or no trusted key has signed it.
    """
    if not (path / MANIFEST_FILE).exists():
        held = versions(path) if path.is_dir() else []
        hint = f"; the newest version in it is {path / str(held[-1])}" if held else ""
        raise BundleError(f"{path}: no bundle: it has no {MANIFEST_FILE}{hint}")
    manifest = _read_manifest(path, trusted)
    _check_files(path, manifest)
    try:
        # The check reads every vocabulary: in maps of their own, so that no page of them stays.
        found = fingerprint(load_schema(path)[0])
        schema, table = load_schema(path)
    except SchemaError as error:
        raise BundleError(error.message) from error
    if found != manifest.schema_fingerprint:
        raise BundleError(f"{path}: schema.json is not the schema that the manifest names")
    return Bundle(path, manifest, schema, table)


def versions(folder: Path) -> list[int]:
    """Versions that lie in `ROOT/NAME`, ascending; names that are no positive integer are not."""
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError as error:
        raise BundleError(f"{folder}: cannot be read: {error.strerror}") from error
    return sorted(int(name) for name in names if is_version(name))


def is_version(name: str) -> bool:
    """Whether a folder may be called so: a positive integer in plain digits."""
    return re.fullmatch("[1-9][0-9]*", name) is not None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` over the files that lie in `folder`."""
    files = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
    document = dataclasses.asdict(dataclasses.replace(manifest, files=files))
    (folder / MANIFEST_FILE).write_text(json.dumps(document, indent=1) + "\n")


def sign_manifest(folder: Path, key_file: Path) -> None:
    """Write the signature of the `manifest.json` in `folder` beside it.

    Raises:
        ConfigError: the key cannot be used.
    """
    content = (folder / MANIFEST_FILE).read_bytes()
    (folder / SIGNATURE_FILE).write_bytes(sign(content, key_file))


def _read_manifest(path: Path, trusted: TrustedKeys | None) -> Manifest:
    content = _read_bytes(path / MANIFEST_FILE)
    if trusted is not None:  # before anything in it is believed, and the very bytes that are read
        trusted.check(content, path / SIGNATURE_FILE)
    document = _parsed(content, path / MANIFEST_FILE)
    if document.get("format") not in _READABLE_FORMATS:
        raise BundleError(
            f"{path}: bundle format {document.get('format')}, "
            f"this version reads {' and '.join(map(str, _READABLE_FORMATS))}"
        )
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{path / MANIFEST_FILE}: {error}") from error
    if is_version(path.name) and int(path.name) != manifest.version:
        raise BundleError(f"{path}: the manifest says version {manifest.version}")
    if trusted is not None and path.absolute().parent.name != manifest.name:
        raise BundleError(f"{path}: what was signed is a version of another model")
    return manifest


def _check_files(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        if name != Path(name).name or name in ("", ".", ".."):
            raise BundleError(f"{path}: the manifest lists '{name}', which leaves the folder")
    required = {MODEL_FILE, GOLDEN_FILE, REFERENCE_FILE, "schema.json"} - manifest.files.keys()
    if required:
        raise BundleError(f"{path}: the manifest does not list {min(required)}")
    present = {entry.name for entry in path.iterdir()}
    unlisted = present - manifest.files.keys() - {MANIFEST_FILE, SIGNATURE_FILE}
    if unlisted:
        raise BundleError(f"{path}: holds {min(unlisted)}, which the manifest does not list")
    for name, expected in manifest.files.items():
        file = path / name
        if name not in present or file.is_symlink() or not file.is_file():
            raise BundleError(f"{file}: missing, or not a regular file")
        if _sha256(file) != expected:
            raise BundleError(f"{file}: its SHA-256 is not the one in the manifest")


def _read_json(file: Path) -> dict[str, Any]:
    return _parsed(_read_bytes(file), file)


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error


def _parsed(content: bytes, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(content.decode())
    except ValueError as error:
        raise BundleError(f"{file}: cannot be read: not valid JSON") from error
    if not isinstance(document, dict):
        raise BundleError(f"{file}: not a JSON object")
    return document


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error

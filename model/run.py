"""The run folder: all that training leaves behind, and all that export reads; no pickle.

`weights.safetensors`, the schema's files, `spec.json` (with the resolved model and train tables),
`metrics.json`, `reference.json` (training counts per index of every field), and as arrays the
logits, labels and groups of the validation and test rows (for calibration), a sample of encoded
training rows (for parity and activation ranges) and one of encoded test rows (to compare precisions
on).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from features.errors import DataError
from features.schema import SIDES, Field, Schema
from features.schema_file import load_schema, save_schema
from features.spec import Spec, spec_from_json
from features.table import HashTable
from model.config import ModelConfig, TrainConfig, configs
from model.deepfm import DeepFM
from model.tensors import save_tensors

SAMPLE_ROWS = 4096
JUDGED_ROWS = 50_000
_WEIGHTS = "weights.safetensors"
_SPEC = "spec.json"
# What the readers of JSON, arrays and weights raise on files that are not theirs.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Judged:
    """Rows a network was judged on.

    Args:
        logit: `[rows]` float32, uncalibrated.
        label: `[rows]` float32.
        group: `[rows]` int64, or None.
    """

    logit: NDArray[np.float32]
    label: NDArray[np.float32]
    group: NDArray[np.int64] | None


@dataclass(frozen=True)
class Sample:
    """Encoded rows of the test part, else of the validation part.

    Args:
        index: `[sample, slots]` int32.
        weight: `[sample, slots]` float32, or None.
        label: `[sample]` float32.
    """

    index: NDArray[np.int32]
    weight: NDArray[np.float32] | None
    label: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run folder holds.

    Args:
        metrics: as `metrics.json`.
        data_fingerprint: of the encoded training rows.
        counts: `[schema.size]` int64, training rows per index; those of crosses are not kept in
            the folder, and 0 when read from it.
        rows: number of training rows.
        sample_index: `[sample, slots]` int32, encoded training rows.
        sample_weight: `[sample, slots]` float32, or None.
        judged: what precisions are compared on; None in folders of versions that kept none.
    """

    spec: Spec
    schema: Schema
    table: HashTable
    network: DeepFM
    metrics: dict[str, Any]
    data_fingerprint: str
    counts: NDArray[np.int64]
    rows: int
    valid: Judged
    test: Judged | None
    sample_index: NDArray[np.int32]
    sample_weight: NDArray[np.float32] | None
    judged: Sample | None = None


def save_run(run: Run, folder: Path, model: ModelConfig, train: TrainConfig) -> None:
    """Write the run into an existing, empty folder."""
    save_tensors(run.network.state_dict(), folder / _WEIGHTS)
    save_schema(run.schema, folder)
    spec = run.spec.to_json()
    spec |= {"model": dataclasses.asdict(model), "train": dataclasses.asdict(train)}
    _write_json(folder / _SPEC, spec)
    _write_json(folder / "metrics.json", run.metrics)
    reference = {
        "rows": run.rows,
        "data_fingerprint": run.data_fingerprint,
        "counts": {
            field.name: run.counts[_range(run.schema, field)].tolist()
            for field in run.schema.fields
        },
    }
    _write_json(folder / "reference.json", reference, indent=None)
    for name, judged in (("valid", run.valid), ("test", run.test)):
        if judged is not None:
            for part, array in vars(judged).items():
                _save(folder / f"{name}.{part}.npy", array)
    _save(folder / "sample.index.npy", run.sample_index)
    _save(folder / "sample.weight.npy", run.sample_weight)
    if run.judged is not None:
        for part, array in vars(run.judged).items():
            _save(folder / f"judged.{part}.npy", array)


def load_run(folder: Path) -> Run:
    """Run at `folder`, its network in evaluation mode.

    Raises:
        DataError: a file is missing, damaged or does not fit the others.
        SchemaError: the schema cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such run folder")
    if not (folder / _SPEC).is_file():
        raise DataError(f"{folder}: not a run folder: it has no {_SPEC}")
    try:
        schema, table = load_schema(folder)
        spec = spec_from_json(_read_json(folder / _SPEC))
        network = DeepFM(schema, configs(spec)[0])
        network.load_state_dict(load_file(folder / _WEIGHTS))
        metrics = _read_json(folder / "metrics.json")
        reference = _read_json(folder / "reference.json")
        data_fingerprint, rows = reference["data_fingerprint"], reference["rows"]
        counts = np.zeros(schema.size, np.int64)
        for field in schema.fields:
            counts[_range(schema, field)] = reference["counts"][field.name]
        valid, test = _load_judged(folder, "valid"), _load_judged(folder, "test")
        sample, weight = (_load(folder / f"sample.{part}.npy") for part in ("index", "weight"))
        judged = _load_sample(folder)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder}: not a whole run folder: {reason}") from error
    is_weighted = any(schema.is_weighted(side) for side in SIDES)
    if valid is None or sample is None or (is_weighted and weight is None):
        raise DataError(f"{folder}: not a whole run folder: validation rows or sample are missing")
    return Run(
        spec=spec,
        schema=schema,
        table=table,
        network=network.eval(),
        metrics=metrics,
        data_fingerprint=data_fingerprint,
        counts=counts,
        rows=rows,
        valid=valid,
        test=test,
        sample_index=sample,
        sample_weight=weight,
        judged=judged,
    )


def _range(schema: Schema, field: Field) -> slice:
    owned = schema.ranges[field.name]
    return slice(owned.start, owned.stop)


def _load_judged(folder: Path, name: str) -> Judged | None:
    logit, label, group = (
        _load(folder / f"{name}.{part}.npy") for part in ("logit", "label", "group")
    )
    return None if logit is None or label is None else Judged(logit, label, group)


def _load_sample(folder: Path) -> Sample | None:
    index, weight, label = (
        _load(folder / f"judged.{part}.npy") for part in ("index", "weight", "label")
    )
    return None if index is None or label is None else Sample(index, weight, label)


def _save(file: Path, array: NDArray[Any] | None) -> None:
    if array is not None:
        np.save(file, array, allow_pickle=False)


def _load(file: Path) -> NDArray[Any] | None:
    return np.load(file, allow_pickle=False) if file.exists() else None


def _write_json(file: Path, document: dict[str, Any], indent: int | None = 1) -> None:
    file.write_text(json.dumps(document, indent=indent, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(file: Path) -> dict[str, Any]:
    document = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise TypeError(f"{file.name} is not a JSON object")
    return document

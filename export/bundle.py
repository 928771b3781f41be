"""Run folder -> bundle: calibrate, export, prove parity, compose golden requests, write whole."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.golden import golden_requests
from export.graph import BundleGraph
from export.parity import TOLERANCE, Graph, check_parity, network_logit, split_sides
from export.quantize import TOLERANCE as INT8_TOLERANCE
from export.quantize import Comparison, compare, quantize
from export.to_onnx import OUTPUTS, write_onnx
from features.atomic import new_folder
from features.bundle import (
    GOLDEN_FILE,
    MODEL_FILE,
    REFERENCE_FILE,
    Manifest,
    is_version,
    sign_manifest,
    versions,
    write_manifest,
)
from features.crosser import Crosser
from features.encode import Encoded, Encoder
from features.errors import ConfigError
from features.schema import SIDES
from features.schema_file import fingerprint, save_schema
from features.signature import sign
from model.calibrate import Calibration, fit_calibration
from model.metrics import evaluate
from model.reliability import reliability
from model.run import Judged, Run, load_run

T = TypeVar("T")


def export_run(
    folder: Path,
    target: Path | None = None,
    precision: str | None = None,
    key_file: Path | None = None,
) -> Path:
    """Export a run folder; reads nothing else.

    Args:
        folder: as `deepfm train` left it.
        target: `ROOT/NAME/VERSION`; default `bundles/NAME/(next integer)` in the working folder.
        precision: default the spec's.
        key_file: private key that signs the bundle; None leaves it unsigned.

    Returns:
        The bundle.

    Raises:
        ConfigError: the target's last part is no version, or the key cannot be used.
        OutputError: the target exists already or cannot be written.
        ParityError: the graph does not score as the network does, or int8 costs too much.
    """
    if key_file is not None:
        sign(b"", key_file)  # a key that cannot be used is said before the work, not after it
    run = load_run(folder)
    precision = precision or run.spec.export.precision
    if precision not in ("fp32", "int8"):
        raise ConfigError(f"precision '{precision}' cannot be exported; expected fp32 or int8")
    target = (target or next_version(Path("bundles") / run.spec.name)).absolute()
    if not is_version(target.name):
        raise ConfigError(f"{target}: the last part must be a version, an integer from 1")
    calibration = fit_calibration(
        run.spec.export.calibration,
        run.valid.logit,
        run.valid.label,
        run.spec.data.negative_sampling_rate,
    )
    with new_folder(target) as draft:
        graph = BundleGraph(run.network, run.schema, calibration, precision)
        inputs = write_onnx(graph, run.schema, draft)
        save_schema(run.schema, draft)
        session = Graph(draft / MODEL_FILE, run.schema)
        golden = golden_requests(run.schema)
        worst = _check(run, session, calibration, golden)
        comparison = None
        if precision == "int8":
            comparison = _quantize(run, calibration, draft)
            session = Graph(draft / MODEL_FILE, run.schema)
        _write_golden(
            run, session, golden, draft, TOLERANCE if comparison is None else INT8_TOLERANCE
        )
        reference = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))
        _write_json(draft / REFERENCE_FILE, {key: reference[key] for key in ("rows", "counts")})
        manifest = Manifest(
            name=target.parent.name,
            version=int(target.name),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            spec_fingerprint=_spec_fingerprint(run),
            data_fingerprint=run.data_fingerprint,
            schema_fingerprint=fingerprint(run.schema),
            metrics=_judged(run, calibration, _metrics),
            reliability=_judged(run, calibration, _reliability),
            calibration=calibration.to_json(),
            precision=precision,
            comparison=None if comparison is None else comparison.to_json(),
            inputs=inputs,
            outputs=OUTPUTS,
            list_separator=run.spec.data.list_separator,
        )
        write_manifest(draft, manifest)
        if key_file is not None:
            sign_manifest(draft, key_file)
    if comparison is not None:
        sys.stderr.write(
            f"on {comparison.rows:,} rows: fp32 {comparison.fp32}, int8 {comparison.int8}\n"
        )
    sys.stderr.write(
        f"calibration {calibration.method}; ONNX Runtime and PyTorch at most {worst:.1e} apart\n"
    )
    return target


def next_version(folder: Path) -> Path:
    """The first version above all that lie in `ROOT/NAME`."""
    taken = versions(folder) if folder.exists() else []
    return folder / str(max(taken, default=0) + 1)


def _check(
    run: Run, session: Graph, calibration: Calibration, golden: list[dict[str, Any]]
) -> float:
    """Parity on real rows, on the golden rows, and on every reserved index."""
    real = split_sides(run.schema, run.sample_index, run.sample_weight)
    composed = [_encode_golden(run, request) for request in golden]
    joined = (
        _concatenated([_repeat(context, len(items.index)) for context, items in composed]),
        _concatenated([items for _, items in composed]),
    )
    return max(
        check_parity(session, run.network, calibration, *real),
        check_parity(session, run.network, calibration, *joined),
    )


def _quantize(run: Run, calibration: Calibration, folder: Path) -> Comparison:
    """The graph in `folder` in 8-bit integers, and what that costs on the judged rows."""
    judged = run.judged
    if judged is None:
        raise ConfigError("the run folder holds no judged rows to compare int8 with fp32 on")
    training = split_sides(run.schema, run.sample_index, run.sample_weight)
    quantize(folder, {"table.weight", "wide.weight"}, *training)
    rows = split_sides(run.schema, judged.index, judged.weight)
    graph = Graph(folder / MODEL_FILE, run.schema)
    return compare(network_logit(run.network, *rows), graph, rows, judged.label, calibration)


def _write_golden(
    run: Run, session: Graph, golden: list[dict[str, Any]], folder: Path, tolerance: float
) -> None:
    requests = []
    for request in golden:
        context, items = _encode_golden(run, request)
        context_row = np.zeros(len(items.index), np.int64)
        logit, score = session.run(context, items, context_row)
        requests.append(request | {"logits": logit.tolist(), "scores": score.tolist()})
    _write_json(folder / GOLDEN_FILE, {"tolerance": tolerance, "requests": requests})


def _encode_golden(run: Run, request: dict[str, Any]) -> tuple[Encoded, Encoded]:
    rows = {
        "context": [request["context"]],
        "candidate": [item["features"] for item in request["candidates"]],
    }
    encoded = []
    for side in SIDES:
        encoder = Encoder(run.schema, side, run.table)
        values = {
            field.name: [row.get(field.name) for row in rows[side]] for field in encoder.fields
        }
        columns, _ = encoder.columns_from_values(values)
        encoded.append(encoder.encode(columns, len(rows[side])))
    Crosser(run.schema).fill(encoded[0], encoded[1])
    return encoded[0], encoded[1]


def _repeat(rows: Encoded, times: int) -> Encoded:
    weight = None if rows.weight is None else rows.weight.repeat(times, 0)
    return Encoded(rows.index.repeat(times, 0), weight)


def _concatenated(parts: list[Encoded]) -> Encoded:
    weights = [part.weight for part in parts if part.weight is not None]
    index = np.concatenate([part.index for part in parts])
    return Encoded(index, np.concatenate(weights) if weights else None)


def _judged(
    run: Run, calibration: Calibration, judge: Callable[[Judged, NDArray[np.float64]], T]
) -> dict[str, dict[str, T]]:
    """What `judge` says of each part before and after calibration.

    Of the rows as logged: negatives left out by sampling are left out here too.
    """
    parts = {"valid": run.valid} | ({} if run.test is None else {"test": run.test})
    scales = {"uncalibrated": Calibration("none"), "calibrated": calibration}
    return {
        scale: {
            name: judge(rows, fitted.score(rows.logit, shifted=False))
            for name, rows in parts.items()
        }
        for scale, fitted in scales.items()
    }


def _metrics(rows: Judged, score: NDArray[np.float64]) -> dict[str, float]:
    return evaluate(rows.logit, score, rows.label, rows.group)


def _reliability(rows: Judged, score: NDArray[np.float64]) -> dict[str, list[float]]:
    return reliability(score, rows.label).to_json()


def _spec_fingerprint(run: Run) -> str:
    # The data's place is no part of what was specified: the same spec elsewhere is the same.
    document = run.spec.to_json()
    document["data"].pop("root", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _write_json(file: Path, document: dict[str, Any]) -> None:
    file.write_text(json.dumps(document) + "\n", encoding="utf-8")

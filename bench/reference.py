"""The network's own scores, which every benchmark compares a server's answers with first."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.job import SHAPES, bodies, path_of
from export.parity import network_logit
from features.encode import Encoder
from features.schema import SIDES
from model.run import load_run

# From PyTorch's fp32 scores: 8-bit integers may move one score by as much as a percent or two.
TOLERANCES = {"fp32": 1e-5, "int8": 2e-2}


class Reference:
    """Scores of request bodies by the network of the run in `folder / "run"`."""

    def __init__(self, folder: Path) -> None:
        run = load_run(folder / "run")
        self.network = run.network
        self.encoders = {side: Encoder(run.schema, side, run.table) for side in SIDES}

    def scores(self, body: bytes) -> NDArray[np.float64]:
        """Scores in the order of the rows."""
        request = json.loads(body)
        if "instances" in request:
            rows = {side: request["instances"] for side in SIDES}
        else:
            candidates = [item["features"] for item in request["candidates"]]
            rows = {"context": [request["context"]] * len(candidates), "candidate": candidates}
        encoded = []
        for side, encoder in self.encoders.items():
            values = {f.name: [row.get(f.name) for row in rows[side]] for f in encoder.fields}
            columns, _ = encoder.columns_from_values(values)
            encoded.append(encoder.encode(columns, len(rows[side])))
        logit = network_logit(self.network, *encoded)
        return 1 / (1 + np.exp(-logit.astype(np.float64)))


def distance(answer: bytes, expected: NDArray[np.float64]) -> float:
    """The largest difference of an answer's scores from those expected; infinite if some miss."""
    document: dict[str, Any] = json.loads(answer)
    if "scores" in document:
        found = np.array(document["scores"])
    else:
        found = np.array([item["score"] for item in document["items"]])
        expected = np.sort(expected)[::-1]
    return float(np.abs(found - expected).max()) if len(found) == len(expected) else np.inf


def check(port: int, reference: Reference, tolerance: float) -> float:
    """The largest distance among some bodies of every shape; ends the run when too large."""
    worst = max(
        distance(post(port, path_of(shape), body), reference.scores(body))
        for shape in SHAPES
        for body in bodies(shape, 5)
    )
    if worst > tolerance:
        raise SystemExit(f"scores are {worst:.1e} away from the reference")
    return worst


def post(port: int, path: str, body: bytes) -> bytes:
    """A server's answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        told: bytes = answer.read()
        return told

"""Serving speed, side by side in one run: this service, a tutorial server and a trivial app.

`python -m bench.serving [--seconds 5]` needs wrk (a Debian package). Each server is started in turn
and its scores are compared with the network's own; then wrk drives every shape of the job over 256
distinct bodies at 1, 16 and 64 connections. CPU time is user and system time of the server's
processes, from /proc, per request.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.job import SHAPES, bodies, build, path_of
from export.parity import network_logit
from features.encode import Encoder
from features.schema import SIDES
from model.run import load_run

# From PyTorch's fp32 scores: 8-bit integers may move one score by as much as a percent or two.
TOLERANCES = {"fp32": 1e-5, "int8": 2e-2}
ROOT = Path(__file__).parents[1]
PORT = 8765
CONNECTIONS = (1, 16, 64)
_UVICORN = [sys.executable, "-m", "uvicorn", "--port", str(PORT), "--log-level", "warning",
            "--no-access-log"]  # fmt: skip
_TICKS = os.sysconf("SC_CLK_TCK")

# Reads one body a line, sends them in turn, prints one JSON line at the end.
_LUA = """
local requests = {}
local next = 0
function init(args)
  for line in io.lines(args[1]) do
    local headers = {["content-type"] = "application/json"}
    requests[#requests + 1] = wrk.format("POST", args[2], headers, line)
  end
  next = math.random(#requests)
end
function request()
  next = next % #requests + 1
  return requests[next]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "us": %d, "p50": %d, "p99": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What one wrk run found."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def servers(bundle: Path, workers: int) -> dict[str, list[str]]:
    """Commands of the servers, ours first."""
    serve = [sys.executable, "-m", "cli", "serve", str(bundle.parent), "--port", str(PORT)]
    return {
        "deepfm": [*serve, "--workers", str(workers), "--provider", "cpu"],
        "tutorial": [*_UVICORN, "bench.tutorial_server:app", "--workers", str(workers)],
        "trivial": [*_UVICORN, "bench.trivial_server:app"],
    }


@contextmanager
def started(command: list[str], bundle: Path) -> Iterator[int]:
    """Pid of a server that answers."""
    environment = os.environ | {"BENCH_BUNDLE": str(bundle)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz"):
                        break
                except urllib.error.URLError:
                    time.sleep(0.1)
            time.sleep(2)  # the other workers
            yield server.pid
        finally:
            server.terminate()
            server.wait(30)


def processes(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += processes(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far."""
    total = 0
    for one in processes(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process tree."""
    resident = proportional = 0
    for one in processes(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                resident += int(line.split()[1])
            elif line.startswith("Pss:"):
                proportional += int(line.split()[1])
    return resident / 1024, proportional / 1024


def post(path: str, body: bytes) -> Any:
    """A server's answer."""
    with urllib.request.urlopen(
        urllib.request.Request(
            f"http://127.0.0.1:{PORT}{path}", body, {"content-type": "application/json"}
        )
    ) as answer:
        return json.load(answer)


class Reference:
    """The network's own scores of request bodies."""

    def __init__(self, folder: Path) -> None:
        run = load_run(folder / "run")
        self.network = run.network
        self.encoders = {side: Encoder(run.schema, side, run.table) for side in SIDES}

    def scores(self, body: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Scores in the order of the rows."""
        if "instances" in body:
            rows = {side: body["instances"] for side in SIDES}
        else:
            candidates = [item["features"] for item in body["candidates"]]
            rows = {"context": [body["context"]] * len(candidates), "candidate": candidates}
        encoded = []
        for side, encoder in self.encoders.items():
            values = {f.name: [row.get(f.name) for row in rows[side]] for f in encoder.fields}
            columns, _ = encoder.columns_from_values(values)
            encoded.append(encoder.encode(columns, len(rows[side])))
        logit = network_logit(self.network, *encoded)
        return 1 / (1 + np.exp(-logit.astype(np.float64)))


def check(reference: Reference, tolerance: float) -> float:
    """The largest difference of a served score from the reference; ends the run when too large."""
    worst = 0.0
    for shape in SHAPES:
        for body in bodies(shape, 5):
            answer, expected = post(path_of(shape), body), reference.scores(json.loads(body))
            if "scores" in answer:
                found = np.array(answer["scores"])
            else:
                found = np.array([item["score"] for item in answer["items"]])
                expected = np.sort(expected)[::-1]
            worst = max(worst, float(np.abs(found - expected).max()))
    if worst > tolerance:
        raise SystemExit(f"scores are {worst:.1e} away from the reference")
    return worst


def drive(pid: int, shape: str, connections: int, seconds: int, folder: Path) -> Load:
    """One closed loop of wrk."""
    script, lines = folder / "post.lua", folder / f"{shape}.jsonl"
    before = cpu_seconds(pid)
    ended = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script,
         f"http://127.0.0.1:{PORT}", "--", lines, path_of(shape)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(ended.stdout.splitlines()[-1])
    if told["errors"]:
        raise SystemExit(f"{told['errors']} requests failed")
    cpu = cpu_seconds(pid) - before
    count = told["requests"]
    if not count:  # a slow server may not end one request in so little time
        return drive(pid, shape, connections, 2 * seconds, folder)
    return Load(count / told["us"] * 1e6, told["p50"] / 1e3, told["p99"] / 1e3, cpu / count * 1e3)


def main() -> None:
    """Print one line per load, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--servers", default="deepfm,tutorial,trivial")
    parser.add_argument("--precision", choices=list(TOLERANCES), default="fp32", help="of ours")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deepfm-bench")
    options = parser.parse_args()
    bundle = build(options.folder, options.precision)
    (options.folder / "post.lua").write_text(_LUA)
    for shape in SHAPES:
        (options.folder / f"{shape}.jsonl").write_bytes(b"\n".join(bodies(shape)) + b"\n")
    reference = Reference(options.folder)
    found = {
        name: measure(name, command, bundle, reference, options)
        for name, command in servers(bundle, options.workers).items()
        if name in options.servers.split(",")
    }
    ours = found.pop("deepfm", {})
    for (shape, connections), load in ours.items():
        ratios = (f"{name} {loads[shape, connections].cpu_ms / load.cpu_ms:6.2f}"
                  for name, loads in found.items())  # fmt: skip
        print(f"{shape:10} {connections:3} connections, CPU time beside ours:", *ratios)


def measure(
    name: str, command: list[str], bundle: Path, reference: Reference, options: argparse.Namespace
) -> dict[tuple[str, int], Load]:
    """All loads of one server."""
    found = {}
    with started(command, bundle) as pid:
        if name != "trivial":
            print(f"{name}: scores within {check(reference, TOLERANCES[options.precision]):.1e}")
        for shape, connections in itertools.product(SHAPES, CONNECTIONS):
            load = drive(pid, shape, connections, options.seconds, options.folder)
            found[shape, connections] = load
            print(
                f"{name:9} {shape:10} {connections:3} connections "
                f"{load.requests_s:9.1f} requests/s, p50 {load.p50_ms:8.2f} ms, "
                f"p99 {load.p99_ms:8.2f} ms, CPU {load.cpu_ms:8.3f} ms",
                flush=True,
            )
        resident, proportional = memory_mb(pid)
        print(f"{name}: memory {resident:.0f} MB resident, {proportional:.0f} MB proportional")
    return found


if __name__ == "__main__":
    main()

"""A closed loop: so many connections, each sending its next request once it is answered; by wrk."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.job import path_of
from bench.processes import Server, cpu_seconds

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
    """What one wrk run found; `cpu_ms` is the server's, per request."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def drive(server: Server, shape: str, connections: int, seconds: int, bodies: Path) -> Load:
    """Load of one shape; `bodies` holds one a line."""
    script = bodies.with_name("post.lua")
    script.write_text(_LUA)
    before = cpu_seconds(server.pid)
    ended = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script,
         f"http://127.0.0.1:{server.port}", "--", bodies, path_of(shape)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = json.loads(ended.stdout.splitlines()[-1])
    if told["errors"]:
        raise SystemExit(f"{told['errors']} requests failed")
    cpu = cpu_seconds(server.pid) - before
    count = told["requests"]
    if not count:  # a slow server may not end one request in so little time
        return drive(server, shape, connections, 2 * seconds, bodies)
    return Load(count / told["us"] * 1e6, told["p50"] / 1e3, told["p99"] / 1e3, cpu / count * 1e3)

"""`make example NAME=...`: prepare, train, export, serve and rank, as a user would by hand.

The data lie in `CTR_DATA` (default ../shared/data), one folder per data set. What is made lies in
`OUTPUT` (default ~/.cache/deepfm-service), outside the repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from examples.prepare import prepare
from export.bundle import export_run, next_version
from features.bundle import open_bundle
from features.errors import DataError, DeepFMError
from features.schema import Schema
from features.spec import load_spec
from model.train import train

EXAMPLES = Path(__file__).parent
CANDIDATES = 5
_PORT = int(os.environ.get("PORT", "8000"))
_START_S = 60


def main(arguments: Sequence[str]) -> int:
    """Run one example; 2 with one sentence on stderr when it cannot be."""
    try:
        run(arguments[0])
    except DeepFMError as error:
        print(error.message, file=sys.stderr)
        return 2
    return 0


def run(name: str) -> None:
    """Everything from the published files to a ranked answer.

    Raises:
        DataError: there is no such example, or its data are not there.
    """
    output = Path(os.environ.get("OUTPUT", Path.home() / ".cache" / "deepfm-service")) / name
    spec_file, root = locate(name, output / "data")
    spec = load_spec(spec_file, [f"data.root={json.dumps(str(root))}"])
    folder = train(spec, output / "runs" / time.strftime("%Y%m%d-%H%M%S"))
    versions = output / "bundles" / name
    bundle = export_run(folder, next_version(versions))
    request = ranking_request(open_bundle(bundle).schema, root / "test.parquet")
    with serving(versions) as address:
        answer = post(f"{address}/rank", request)
    print(json.dumps(request, indent=1, ensure_ascii=False))
    print(json.dumps(answer, indent=1))


def locate(name: str, prepared: Path) -> tuple[Path, Path]:
    """Spec file of an example, and the folder of its data, prepared into `prepared` if need be.

    Raises:
        DataError: there is no such example, or its data are not there.
    """
    spec = EXAMPLES / f"{name}.toml"
    if not spec.exists():
        names = ", ".join(sorted(path.stem for path in EXAMPLES.glob("*.toml")))
        raise DataError(f"there is no example '{name}'; there are {names}")
    source = source_of(name, Path(os.environ.get("CTR_DATA", "../shared/data")))
    if not source.is_dir():
        raise DataError(
            f"{source}: the data are not there; examples/README.md says where they are published, "
            "and CTR_DATA names the folder that holds them"
        )
    return spec, prepare(name, source, prepared)


def source_of(name: str, data: Path) -> Path:
    """Folder of the published data set that an example reads; several may read one."""
    for form in ("_buckets", "_values", "_wide"):
        name = name.removesuffix(form)
    return data / name


def ranking_request(schema: Schema, rows: Path) -> dict[str, Any]:
    """A /rank body: the first row's context, and the candidates of the first few rows."""
    chosen = pq.read_table(rows).slice(0, CANDIDATES).to_pylist()

    def features(row: dict[str, Any], side: Any) -> dict[str, Any]:
        return {field.name: row[field.name] for field in schema.side(side)}

    candidates = [
        {"id": number, "features": features(row, "candidate")}
        for number, row in enumerate(chosen, 1)
    ]
    context = features(chosen[0], "context")
    return ({"context": context} if context else {}) | {"candidates": candidates}


@contextmanager
def serving(versions: Path) -> Iterator[str]:
    """Address of a server of the newest version, stopped at the end."""
    address = f"http://127.0.0.1:{_PORT}"
    command = [sys.executable, "-m", "cli", "serve", str(versions), "--port", str(_PORT)]
    with subprocess.Popen(command, cwd=EXAMPLES.parent) as server:
        try:
            wait_until_ready(address, server)
            yield address
        finally:
            server.terminate()


def wait_until_ready(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return once /readyz says so.

    Raises:
        DataError: the server ended, or did not get ready in time.
    """
    for _ in range(_START_S * 10):
        if server.poll() is not None:
            raise DataError(f"the server ended with code {server.returncode}")
        try:
            with urllib.request.urlopen(f"{address}/readyz"):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise DataError(f"the server was not ready after {_START_S} s")


def post(url: str, body: dict[str, Any]) -> Any:
    """The answer to a JSON body."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""schemathesis over the served OpenAPI document: the service does what the document says.

A failure prints a seed, and the requests as curl commands.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from features.schema import Schema
from tests.service.admin_document import admin_document
from tests.service.linear import NO_CONTEXT, REJECTING, SCHEMA, write_bundle
from tests.service.processes import ROOT, served

pytestmark = pytest.mark.slow

KEY = "a-key-of-the-contract"


@pytest.mark.parametrize(
    ("schema", "examples", "least"),
    [(SCHEMA, 400, 1200), (REJECTING, 400, 1000), (NO_CONTEXT, 50, 300)],
    ids=["all kinds", "rejecting", "no context"],
)
def test_the_service_does_what_its_document_says(
    schema: Schema, examples: int, least: int, tmp_path: Path
) -> None:
    """A shadow stands beside and a third version is refused: the answers tell of both."""
    (tmp_path / "m" / "3").mkdir(parents=True)
    with serving(tmp_path, schema, "DEEPFM_API_KEYS_FILE", "--shadow", "1") as address:
        document = f"{address}/openapi.json"
        assert cases(tmp_path, document, "--max-examples", str(examples)) >= least


def test_admin_does_what_is_written_of_it(tmp_path: Path) -> None:
    document = tmp_path / "admin.json"
    document.write_text(json.dumps(admin_document()))
    with serving(tmp_path, SCHEMA, "DEEPFM_ADMIN_KEYS_FILE") as address:
        assert cases(tmp_path, str(document), "--url", address) >= 300


@contextmanager
def serving(folder: Path, schema: Schema, keys: str, *options: str) -> Iterator[str]:
    """Address of a server of two versions; its limits are small, so that bodies go beyond them."""
    for version in (1, 2):
        write_bundle(folder / "m" / str(version), schema, seed=version)
    (folder / "keys").write_text(KEY)
    variables = {"DEEPFM_MAX_ROWS": "20", "DEEPFM_MAX_TEXT": "30", "DEEPFM_MAX_LIST": "5"}
    variables[keys] = str(folder / "keys")
    with (
        (folder / "log").open("w") as log,
        served(folder / "m", *options, log=log.fileno(), **variables) as (_, address),
    ):
        yield address


def cases(folder: Path, document: str, *options: str) -> int:
    """How many cases schemathesis tried; no check failed in any."""
    report = folder / "report.json"
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file=tests/service/contract.toml",
        "--no-color", "run", document, "--header", f"Authorization: Bearer {KEY}",
        "--checks=all", "--continue-on-failure", "--generation-database=none",
        "--report-json-path", str(report), *options,
    ]  # fmt: skip
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr + (folder / "log").read_text()
    found: int = json.loads(report.read_text())["test_cases"]["generated"]
    return found

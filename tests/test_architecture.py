"""What may import what, and what a serving process must not hold."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "features": set(),
    "model": {"features"},
    "export": {"features", "model"},
    "service": {"features"},
}
NEVER_SERVED = {"torch", "pandas", "sklearn", "pyarrow", "onnx", "scipy"}
SERVE = {
    "fastapi", "uvicorn", "httptools", "uvloop", "pydantic", "onnxruntime", "numpy", "msgspec",
    "xxhash", "prometheus-client",
}  # fmt: skip
_SCRIPT = """
import json, sys
from starlette.testclient import TestClient
from service.app import create_app
with TestClient(create_app()) as client:
    answer = client.post("/rank", json={"candidates": [{"id": 1, "features": {"item": 3}}]})
    assert answer.status_code == 200, answer.text
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def imports(file: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_dependencies_point_one_way(package: str) -> None:
    ours = {*ALLOWED, "cli", "bench", "examples", "tests"}
    for file in (ROOT / package).glob("*.py"):
        assert imports(file) & ours <= ALLOWED[package] | {package}, file


def neighbours(file: Path) -> set[str]:
    """Files of its own folder that a file imports, if only for types."""
    modules = {
        node.module.removeprefix(f"{file.parent.name}.")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    return {one.stem for one in file.parent.glob("*.py")} & modules


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_in_no_circle(package: str) -> None:
    graph = {file.stem: neighbours(file) for file in (ROOT / package).glob("*.py")}
    assert any(graph.values())
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_table_above_names_every_package() -> None:
    """A folder that nobody lists is neither held to a direction nor installed."""
    folders = {file.parent.name for file in ROOT.glob("*/*.py") if file.parent.name[0] != "."}
    assert folders - {"tests", "bench", "examples", "deploy", "docs", "build"} == set(ALLOWED)


def test_features_run_without_torch() -> None:
    for file in (ROOT / "features").glob("*.py"):
        assert not imports(file) & {"torch", "onnx", "onnxruntime", "fastapi"}, file


def test_only_offline_scoring_reads_arrow_in_the_service() -> None:
    for file in (ROOT / "service").glob("*.py"):
        allowed = {"pyarrow"} if file.name == "batch.py" else set()
        assert imports(file) & NEVER_SERVED <= allowed, file


def test_a_serving_process_holds_no_trainer(bundle_path: Path) -> None:
    environment = os.environ | {"DEEPFM_BUNDLE": str(bundle_path.parent)}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert "onnxruntime" in loaded
    assert not loaded & NEVER_SERVED


def test_the_extras_are_what_the_readme_promises() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {
        name: {one.partition(">=")[0].partition("==")[0] for one in needed}
        for name, needed in project["project"]["optional-dependencies"].items()
    }
    assert extras["serve"] == SERVE
    assert extras["gpu"] == SERVE - {"onnxruntime"} | {"onnxruntime-gpu[cuda,cudnn]"}
    assert not any(name.startswith("onnxruntime") for name in extras["train"])
    needed = project["project"]["optional-dependencies"]
    serve, gpu = (
        sorted(one for one in needed[name] if not one.startswith("onnxruntime"))
        for name in ("serve", "gpu")
    )
    assert serve == gpu  # the same versions too, not only the same names
    assert set(project["tool"]["setuptools"]["packages"]) == set(ALLOWED)
    assert project["tool"]["setuptools"]["py-modules"] == ["cli"]


def test_locks_are_exact_and_name_no_index() -> None:
    for name in ("constraints.txt", "requirements-serve.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        lines = [line for line in text.splitlines() if line and line[0] not in " #"]
        assert lines
        assert all("==" in line for line in lines)
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text()
    assert "torch" not in (ROOT / "requirements-serve.lock").read_text()


def test_files_stay_short() -> None:
    files = [ROOT / "cli.py"]
    for folder in (*ALLOWED, "bench", "examples", "tests"):
        files += (ROOT / folder).rglob("*.py")
    for file in files:
        assert len(file.read_text().splitlines()) <= 400, file

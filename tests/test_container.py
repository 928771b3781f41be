"""The image, where there is a container engine: builds, and runs with next to no rights."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.processes import PATIENCE_S, free_port, get, is_ready

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
BASE = "python:3.13-slim"
IMAGE = "deepfm-service:tested"


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def image() -> str:
    if shutil.which("docker") is None or docker("version").returncode:
        pytest.skip("no container engine")
    if docker("image", "inspect", BASE).returncode and docker("pull", BASE).returncode:
        pytest.skip(f"the image {BASE} cannot be had")
    built = docker("build", "--network", "host", "--tag", IMAGE, ".")
    assert built.returncode == 0, built.stderr[-4000:]
    return IMAGE


@pytest.fixture
def container(image: str, bundle_path: Path) -> Iterator[tuple[str, str]]:
    """Name and address of one that runs with the options of docker-compose.yml, as some user."""
    port, name = free_port(), "deepfm-service-tested"
    docker("rm", "--force", name)
    started = docker(
        "run", "--detach", "--name", name, "--network", "host",
        "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--user", "12345:0", "--volume", f"{bundle_path.parent}:/bundles/tiny:ro",
        image, "serve", "/bundles/tiny", "--port", str(port), "--workers", "2",
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + PATIENCE_S
        while not is_ready(f"{address}/readyz"):
            assert time.monotonic() < until, docker("logs", name).stderr
            time.sleep(0.2)
        yield name, address
    finally:
        docker("rm", "--force", name)


def test_it_answers_without_rights_a_user_of_its_own_or_a_writable_file(
    container: tuple[str, str],
) -> None:
    name, address = container
    assert len(get(f"{address}/score", {"instances": [{"age": 31}]})["scores"]) == 1
    status = docker("exec", name, "cat", "/proc/1/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t12345" in status
    assert docker("exec", name, "touch", "/tmp/x").returncode != 0
    assert docker("exec", name, "python", "-c", "import torch").returncode != 0


def test_it_ends_with_0_on_sigterm(container: tuple[str, str]) -> None:
    name, _ = container
    docker("stop", "--time", "20", name)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip() == "0"


def test_its_own_health_check_passes(container: tuple[str, str]) -> None:
    name, address = container
    port = address.rpartition(":")[2]
    check = docker("inspect", "--format", "{{index .Config.Healthcheck.Test 3}}", name).stdout
    variable = ("--env", f"DEEPFM_PORT={port}")
    assert docker("exec", *variable, name, "python", "-c", check.strip()).returncode == 0

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import cpu_seconds, processes, use

# The benchmarks read CPU time and memory of servers from Linux's /proc.
pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
CHILD = "import sys; held = bytearray(b'x' * 30_000_000); print(); sys.stdin.read()"


@pytest.fixture
def child() -> Iterator[int]:
    """A child of this process that holds 30 MB."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        yield one.pid


def test_a_tree_holds_its_descendants(child: int) -> None:
    assert child in processes(os.getpid())
    assert processes(child) == [child]


def test_use_counts_what_a_process_holds(child: int) -> None:
    held = use(child)
    assert 30 <= held.private <= held.proportional <= held.resident < 100
    assert held.largest_private == held.private
    assert (held.descriptors, held.threads) == (3, 1)


def test_processor_time_of_a_tree_grows() -> None:
    before, until = cpu_seconds(os.getpid()), time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert cpu_seconds(os.getpid()) > before

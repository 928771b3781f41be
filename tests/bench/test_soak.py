from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bench.open_loop import Window
from bench.processes import Server
from bench.soak import Record, warm_up_s

# The benchmarks read CPU time and memory of servers from Linux's /proc.
pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")


def record() -> Record:
    """A record of this process."""
    return Record(Server(os.getpid(), 0), {"score 1": [np.array([0.25]), np.array([0.5])]})


def window(at_s: float, latency_us: int = 1000, answer: bytes = b'{"scores":[0.5]}') -> Window:
    """A window in which the second body was answered."""
    return Window(
        {"score 1": [latency_us]}, at_s=at_s, late_us=[7], samples={"score 1": (1, answer)}
    )


def test_right_scores_are_no_errors() -> None:
    one = record()
    one.add(window(10))
    assert not one.errors
    assert one.answers == 1


@pytest.mark.parametrize("answer", [b'{"scores":[0.6]}', b'{"scores":[]}'])
def test_wrong_scores_are_errors(answer: bytes) -> None:
    one = record()
    one.add(window(10, answer=answer))
    assert one.errors == {"score 1: wrong scores": 1}
    assert "1 errors" in one.line()


def test_errors_of_the_generator_are_errors() -> None:
    one = record()
    one.add(Window({"score 1": []}, at_s=10, errors={"score 1: status 500": 3}))
    assert one.errors.total() == 3
    assert one.summary()[-1] == "3 errors in 0 answers"


def test_a_replaced_process_is_an_error() -> None:
    one = record()
    one.processes = [*one.processes, 1]
    one.add(window(10))
    assert one.errors == {"a process of the service was replaced": 1}


def test_the_summary_leaves_the_warm_up_out() -> None:
    one = record()
    for number in range(1, 11):
        one.add(window(60 * number, latency_us=9000 if number < 3 else 1000 + 100 * number))
    (line,) = (line for line in one.summary() if line.startswith("score 1 p99 ms"))
    # Of 1.3 to 2 ms, 0.1 ms more each minute.
    assert line.split()[-2:] == ["1.6", "+6"]


def test_the_warm_up_is_a_fifth_and_at_most_five_minutes() -> None:
    assert warm_up_s(600) == 120
    assert warm_up_s(7200) == 300

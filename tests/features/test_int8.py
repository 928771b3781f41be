from __future__ import annotations

from pathlib import Path

import pytest

from features.int8 import exact_sums


@pytest.mark.parametrize("flag", ["avx_vnni", "avx512_vnni", "amx_int8"])
def test_a_processor_that_sums_exactly_is_left_alone(tmp_path: Path, flag: str) -> None:
    """The entry would cost AMX half its speed."""
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: fpu avx2 {flag} sse4_2\nbugs\t\t: none\n")
    assert exact_sums(file) == {}


def test_any_other_is_asked_for_exact_sums(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nvmx flags\t: avx512_vnni\nflags\t\t: fpu avx2\n")
    asked = {"session.x64quantprecision": "1"}
    assert exact_sums(file) == asked
    assert exact_sums(tmp_path / "none") == asked

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from service import mappings
from service.mappings import release, trim

SMAPS = Path("/proc/self/smaps")
SIZE = 1 << 20
pytestmark = pytest.mark.skipif(not SMAPS.exists(), reason="maps are Linux's to tell")


def mapped(file: Path) -> mmap.mmap:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x" * SIZE)
    with file.open("rb") as opened:
        found = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    assert found[:] == b"x" * SIZE  # which touches every page
    return found


def resident_kb(file: Path) -> int:
    lines = SMAPS.read_text().splitlines()
    (begin,) = [number for number, line in enumerate(lines) if line.endswith(str(file))]
    rss = next(line for line in lines[begin:] if line.startswith("Rss:"))
    return int(rss.split()[1])


def test_pages_of_a_folder_are_given_back_and_read_again(tmp_path: Path) -> None:
    file, other = tmp_path / "1" / "a file", tmp_path / "10" / "a file"
    with mapped(file) as one, mapped(other):
        release(tmp_path / "1")
        assert (resident_kb(file), resident_kb(other)) == (0, SIZE // 1024)
        assert one[:] == b"x" * SIZE


def test_a_folder_is_found_behind_a_link(tmp_path: Path) -> None:
    file = tmp_path / "1" / "file"
    (tmp_path / "link").symlink_to("1")
    with mapped(file):
        release(tmp_path / "link")
        assert resident_kb(file) == 0


@pytest.mark.skipif(mappings._malloc_trim is None, reason="only glibc gives back what is asked for")
def test_what_was_freed_is_given_back_though_something_above_it_stays() -> None:
    blocks = [bytes(10_000) for _ in range(5_000)]
    last = blocks.pop()
    blocks.clear()
    held = anonymous_kb()
    trim()
    assert held - anonymous_kb() > 30_000
    assert len(last) == 10_000


def anonymous_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1])

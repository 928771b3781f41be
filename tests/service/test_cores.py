from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.cores import usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def lay(folder: Path, group: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A file system of control groups, and the file that names our own."""
    own = folder / "own"
    own.write_text(f"0::{group}\n")
    for name, text in files.items():
        file = folder / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "cgroup", own


def test_without_a_quota_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 8
    assert usable_cores(*lay(tmp_path, "/", {"cpu.max": "max 100000\n"})) == 8


def test_a_quota_counts_rounded_up(tmp_path: Path) -> None:
    assert usable_cores(*lay(tmp_path, "/", {"cpu.max": "250000 100000\n"})) == 3


def test_the_smallest_quota_above_counts(tmp_path: Path) -> None:
    files = {"pod/cpu.max": "200000 100000", "pod/app/cpu.max": "400000 100000"}
    assert usable_cores(*lay(tmp_path, "/pod/app", files)) == 2


def test_a_group_outside_the_mount_is_not_followed(tmp_path: Path) -> None:
    files = {"cpu.max": "100000 100000"}
    cgroups, own = lay(tmp_path, "/kubepods/pod7", files)
    assert usable_cores(cgroups, own) == 1


def test_quotas_of_version_1_count_too(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}
    assert usable_cores(*lay(tmp_path, "/", files)) == 4
    files = {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}
    assert usable_cores(*lay(tmp_path, "/", files)) == 8


def test_there_is_always_one_core(tmp_path: Path) -> None:
    assert usable_cores(*lay(tmp_path, "/", {"cpu.max": "1000 100000"})) == 1

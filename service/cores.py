"""How many cores the process may use: those it is pinned to, as far as its container's quota pays.

The runtime's own default counts the cores of the host, however small the container's share.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores by affinity, at most the CPU quota of every control group above us, rounded up.

    Args:
        cgroups: where the file system of control groups is mounted (version 2, else 1).
        own: file that names the process's control group.
    """
    is_pinned = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if is_pinned else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(cgroups, own))]))


def _quotas(cgroups: Path, own: Path) -> list[float]:
    """Cores that each limiting group pays for: quota over period, both in microseconds."""
    quotas = []
    for folder in [*_groups(cgroups, own), cgroups / "cpu"]:
        # cpu.max holds "QUOTA PERIOD" or "max PERIOD"; version 1 has a file for each, -1 for none.
        words = _words(folder / "cpu.max") or (
            _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        )
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return quotas


def _groups(cgroups: Path, own: Path) -> list[Path]:
    """The process's group and all above it, up to where they are mounted."""
    lines = [line.split(":", 2)[2] for line in _lines(own) if line.startswith("0::")]
    group = cgroups / lines[0].lstrip("/") if lines else cgroups
    return [group, *(parent for parent in group.parents if parent.is_relative_to(cgroups))]


def _words(file: Path) -> list[str]:
    return [word for line in _lines(file) for word in line.split()]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # no such controller, or no Linux
        return []

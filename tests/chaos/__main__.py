"""`python -m tests.chaos [--short]`: the service under load while things break.

The table has a row for each fault. The process ends with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import bad_versions, faults
from tests.chaos.questions import VERSIONS, questions, write_version
from tests.chaos.row import Row, table
from tests.chaos.server import started


def rows(scene: faults.Scene) -> Iterator[Row]:
    """Inject one fault after the other."""
    with started(scene.folder, faults.WORKERS) as server:
        for fault in (
            faults.killed_workers,
            bad_versions.switched,
            bad_versions.bad_bundles,
            bad_versions.unused_files,
            faults.stopped_workers,
            faults.descriptors_exhausted,
        ):
            yield fault(scene, server)
    for alone in (
        faults.sigterm_alone,
        faults.sigterm_behind_balancer,
        faults.moved_clock,
        faults.no_room_for_logs,
        faults.no_room_on_disk,
    ):
        yield alone(scene)


def main() -> None:
    """Print a line per fault, then the table and what was broken."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="inject each fault a few times only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "models" / "m"
        folder.mkdir(parents=True)
        for version in VERSIONS:
            write_version(folder, version)
        seen, began = [], time.monotonic()
        for row in rows(faults.Scene(folder, questions(), options.short)):
            print(f"{time.monotonic() - began:4.0f} s: {row.fault}", file=sys.stderr, flush=True)
            seen.append(row)
    print(table(seen))
    for row in seen:
        for told in (*row.broken, *row.wrong[:5], *row.failed[:5]):
            print(f"{row.fault}: {told}")
    raise SystemExit(not all(row.is_kept for row in seen))


if __name__ == "__main__":
    main()

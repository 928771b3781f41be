"""Fuzzes the compiled reader of bodies against the Python way, led by coverage, under sanitizers.

    python -m tests.fuzz.readers [SECONDS] [SEED]

Builds `service/_bodies.c` with gcc's address and undefined-behaviour sanitizers into a folder of
its own, and starts itself again on that build. Bodies that make the C code take a step not taken
before are kept and changed further. Ends with exit code 1 at the first body that is read
differently, or fails otherwise than by a `RequestError`; a sanitizer's report ends it too.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_BUILT = "FUZZED_READER"  # where the build lies
_COVERAGE = "-fsanitize-coverage=trace-pc"


def build(folder: Path) -> Path:
    """The module `service._bodies` with sanitizers and counted steps."""
    include = f"-I{sysconfig.get_paths()['include']}"
    common = ["gcc", "-g", "-O1", "-fPIC", "-fno-omit-frame-pointer", include]
    reader, counter = folder / "bodies.o", folder / "coverage.o"
    source = ROOT / "service" / "_bodies.c"
    subprocess.run([*common, *_SANITIZERS, _COVERAGE, "-c", source, "-o", reader], check=True)
    subprocess.run(
        [*common, "-c", Path(__file__).with_name("coverage.c"), "-o", counter], check=True
    )
    module = folder / "_bodies.so"
    subprocess.run(["gcc", "-shared", *_SANITIZERS, reader, counter, "-o", module], check=True)
    return module


def load(path: Path) -> ctypes.Array[ctypes.c_uint8]:
    """Make the build at `path` the module `service._bodies`; gives its map of steps."""
    spec = importlib.util.spec_from_file_location("service._bodies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["service._bodies"] = module
    return (ctypes.c_uint8 * (1 << 16)).in_dll(ctypes.CDLL(str(path)), "steps_taken")


def fuzz(path: Path, seconds: float, seed: int) -> None:
    """Read bodies in both ways until the time is over."""
    steps = load(path)
    # Only now: they import the module that has just been loaded.
    from tests.fuzz.mutations import SEEDS, mutated  # noqa: PLC0415
    from tests.service import test_compiled  # noqa: PLC0415
    from tests.service.alike import answered_alike  # noqa: PLC0415

    ways = [test_compiled.FULL, test_compiled.SMALL, test_compiled.BARE]
    choices, kept, taken = random.Random(seed), list(SEEDS), bytes(1 << 16)
    count, plain, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        body = mutated(choices.choice(kept), choices)
        try:
            plain += sum([answered_alike(one, body) for one in ways])
        except BaseException:
            print(f"after {count} bodies: {body!r}")  # noqa: T201
            raise
        count += 1
        now = bytes(steps)
        if now != taken:
            taken = now
            kept.append(body)
    found = f"{plain} times plain, {len(kept)} kept, {sum(taken)} steps"
    print(f"{count} bodies, {found}; seed {seed}")  # noqa: T201


def main() -> int:
    """Build, then run again on what was built."""
    given = dict(enumerate(sys.argv))
    seconds, seed = given.get(1, "60"), given.get(2) or str(random.randrange(1 << 32))
    if _BUILT in os.environ:
        fuzz(Path(os.environ[_BUILT]), float(seconds), int(seed))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        module = build(Path(folder))
        found = subprocess.run(
            ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
        )
        variables = {
            _BUILT: str(module),
            "LD_PRELOAD": found.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",  # so that a body's own bytes are guarded too
        }
        command = [sys.executable, "-m", "tests.fuzz.readers", seconds, seed]
        return subprocess.run(command, env=os.environ | variables, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

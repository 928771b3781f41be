"""A compiled module built with gcc's address and undefined-behaviour sanitizers, to be fuzzed.

The module is built into a folder of its own and counts the steps that its code takes; the script
that fuzzes it starts itself again on that build. Texts that make the code take a step not taken
before are kept and changed further. The first fault ends it, a sanitizer's report too.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_BUILT = "FUZZED_MODULE"  # where the build lies
_COVERAGE = "-fsanitize-coverage=trace-pc"


class Fuzz(NamedTuple):
    """What is done to a module.

    Args:
        seeds: texts to begin with.
        mutated: one of them, changed.
        is_taken: whether the module took a text; raises where it did so wrongly.
    """

    seeds: Sequence[bytes]
    mutated: Callable[[bytes, random.Random], bytes]
    is_taken: Callable[[bytes, random.Random], bool]


def fuzz_sanitized(script: str, name: str, begin: Callable[[], Fuzz]) -> int:
    """Build, then run again on what was built: `python -m SCRIPT [SECONDS] [SEED]`.

    Args:
        script: name of the module that calls.
        name: of the compiled module; its source is `NAME.c` with slashes for dots.
        begin: called once `name` is the sanitized build.

    Returns:
        Exit code of the run.
    """
    given = dict(enumerate(sys.argv))
    seconds, seed = given.get(1, "60"), given.get(2) or str(random.randrange(1 << 32))
    if _BUILT in os.environ:
        steps = _load(name, Path(os.environ[_BUILT]))
        _fuzz(begin(), steps, float(seconds), int(seed))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        module = _build(name, Path(folder))
        found = subprocess.run(
            ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
        )
        variables = {
            _BUILT: str(module),
            "LD_PRELOAD": found.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",  # so that a text's own bytes are guarded too
        }
        command = [sys.executable, "-m", script, seconds, seed]
        return subprocess.run(command, env=os.environ | variables, cwd=ROOT, check=False).returncode


def _fuzz(what: Fuzz, steps: ctypes.Array[ctypes.c_uint8], seconds: float, seed: int) -> None:
    choices, kept, seen = random.Random(seed), list(what.seeds), bytes(1 << 16)
    count, taken, end = 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        text = what.mutated(choices.choice(kept), choices)
        try:
            taken += what.is_taken(text, choices)
        except BaseException:
            print(f"after {count} texts: {text!r}")  # noqa: T201
            raise
        count += 1
        now = bytes(steps)
        if now != seen:
            seen = now
            kept.append(text)
    found = f"{taken} taken, {len(kept)} kept, {sum(seen)} steps"
    print(f"{count} texts, {found}; seed {seed}")  # noqa: T201


def _build(name: str, folder: Path) -> Path:
    """The module with sanitizers and counted steps."""
    include = f"-I{sysconfig.get_paths()['include']}"
    common = ["gcc", "-g", "-O1", "-fPIC", "-fno-omit-frame-pointer", include]
    reader, counter = folder / "module.o", folder / "coverage.o"
    source = ROOT / f"{name.replace('.', '/')}.c"
    subprocess.run([*common, *_SANITIZERS, _COVERAGE, "-c", source, "-o", reader], check=True)
    subprocess.run(
        [*common, "-c", Path(__file__).with_name("coverage.c"), "-o", counter], check=True
    )
    module = folder / f"{name.rpartition('.')[2]}.so"
    subprocess.run(["gcc", "-shared", *_SANITIZERS, reader, counter, "-o", module], check=True)
    return module


def _load(name: str, path: Path) -> ctypes.Array[ctypes.c_uint8]:
    """Make the build at `path` the module `name`; gives its map of steps."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return (ctypes.c_uint8 * (1 << 16)).in_dll(ctypes.CDLL(str(path)), "steps_taken")

"""A compiled module built with gcc's address and undefined-behaviour sanitizers, to be fuzzed.

The module is built into a folder of its own and counts the steps that its code takes; the script
that fuzzes it starts itself again on that build. A sanitizer's report ends it.
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
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_BUILT = "FUZZED_MODULE"  # where the build lies
_COVERAGE = "-fsanitize-coverage=trace-pc"

Steps = ctypes.Array[ctypes.c_uint8]


def fuzz_sanitized(script: str, name: str, fuzz: Callable[[Steps, float, int], None]) -> int:
    """Build, then run again on what was built: `python -m SCRIPT [SECONDS] [SEED]`.

    Args:
        script: name of the module that calls.
        name: of the compiled module; its source is `NAME.c` with slashes for dots.
        fuzz: raises at the first fault; is given the map of steps, seconds and seed, once `name` is
            the sanitized build.

    Returns:
        Exit code of the run.
    """
    given = dict(enumerate(sys.argv))
    seconds, seed = given.get(1, "60"), given.get(2) or str(random.randrange(1 << 32))
    if _BUILT in os.environ:
        fuzz(_load(name, Path(os.environ[_BUILT])), float(seconds), int(seed))
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


def _load(name: str, path: Path) -> Steps:
    """Make the build at `path` the module `name`; gives its map of steps."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return (ctypes.c_uint8 * (1 << 16)).in_dll(ctypes.CDLL(str(path)), "steps_taken")

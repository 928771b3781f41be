"""Fuzzes the compiled reader of bodies against the Python way, led by coverage, under sanitizers.

    python -m tests.fuzz.readers [SECONDS] [SEED]

Ends with exit code 1 at the first body that `service/_bodies.c` reads differently, or that fails
otherwise than by a `RequestError`.
"""

from __future__ import annotations

import sys
from random import Random

from tests.fuzz.mutations import SEEDS, mutated
from tests.fuzz.sanitized import Fuzz, fuzz_sanitized


def begin() -> Fuzz:
    """Reads bodies in both ways."""
    # Only now: they import the module that has just been loaded.
    from tests.service import test_compiled  # noqa: PLC0415
    from tests.service.alike import answered_alike  # noqa: PLC0415

    ways = [test_compiled.FULL, test_compiled.SMALL, test_compiled.BARE]

    def is_taken(body: bytes, _: Random) -> bool:
        return any([answered_alike(one, body) for one in ways])

    return Fuzz(SEEDS, mutated, is_taken)


if __name__ == "__main__":
    sys.exit(fuzz_sanitized("tests.fuzz.readers", "service._bodies", begin))

"""Fuzzes the compiled reader of bodies against the Python way, led by coverage, under sanitizers.

    python -m tests.fuzz.readers [SECONDS] [SEED]

Bodies that make `service/_bodies.c` take a step not taken before are kept and changed further. Ends
with exit code 1 at the first body that is read differently, or fails otherwise than by a
`RequestError`; a sanitizer's report ends it too.
"""

from __future__ import annotations

import random
import sys
import time

from tests.fuzz.sanitized import Steps, fuzz_sanitized


def fuzz(steps: Steps, seconds: float, seed: int) -> None:
    """Read bodies in both ways until the time is over."""
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


if __name__ == "__main__":
    sys.exit(fuzz_sanitized("tests.fuzz.readers", "service._bodies", fuzz))

from __future__ import annotations

import asyncio
import time

from bench.alarm import Alarm


async def ring_times(waits_s: list[float]) -> list[float]:
    """By how much an alarm was late, set so many seconds ahead one after the other."""
    rung = asyncio.Event()
    late: list[float] = []

    def ring() -> None:
        late.append(time.monotonic() - at)
        alarm.set(time.monotonic() + 60)
        rung.set()

    alarm = Alarm(asyncio.get_running_loop(), ring)
    for wait_s in waits_s:
        at = time.monotonic() + wait_s
        alarm.set(at)
        await asyncio.wait_for(rung.wait(), 5)
        rung.clear()
    alarm.close()
    return late


def test_an_alarm_rings_once_and_not_before_its_time() -> None:
    late = asyncio.run(ring_times([0.0003, 0.0121, 0.0005] * 5))
    assert min(late) >= 0
    # The best of them, for the machine may be busy; an event loop's own timer rounds up to 1 ms.
    assert min(late) < 0.0005


def test_a_time_that_is_past_rings_at_once() -> None:
    assert asyncio.run(ring_times([-1.0]))[0] < 5

"""WakeSignal: no wake is missed, of several alarms the earliest counts, threads may wake."""

from __future__ import annotations

import asyncio

from protoflow.transport.kit.wake_signal import WakeSignal

from tests.transport.kit.virtual import virtual_time


async def test_a_wake_before_wait_is_not_missed() -> None:
    signal = WakeSignal()
    signal.clear()
    signal.wake()
    await signal.wait()


async def test_clear_forgets_earlier_wakes() -> None:
    signal = WakeSignal()
    signal.wake()
    signal.clear()
    waiting = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert signal.waiting
    signal.wake()
    await waiting
    assert not signal.waiting


async def test_the_earliest_alarm_counts() -> None:
    with virtual_time() as clock:
        signal = WakeSignal()
        for seconds in (5.0, 2.0, 9.0):
            signal.wake_after(seconds)
        start = clock.monotonic()
        await signal.wait()
        assert clock.monotonic() - start == 2.0


async def test_another_thread_may_wake() -> None:
    signal = WakeSignal()
    waiting = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    await asyncio.to_thread(signal.wake)
    await waiting


async def test_a_wake_after_the_loop_has_ended_is_ignored() -> None:
    def other_loop() -> WakeSignal:
        async def make() -> WakeSignal:
            return WakeSignal()

        return asyncio.run(make())

    signal = await asyncio.to_thread(other_loop)
    signal.wake()


async def test_close_wakes_and_cancels_the_alarm() -> None:
    with virtual_time() as clock:
        signal = WakeSignal()
        signal.wake_after(5.0)
        signal.close()
        await signal.wait()
        signal.clear()
        waiting = asyncio.create_task(signal.wait())
        await clock.sleep(20.0)
        assert not waiting.done()
        waiting.cancel()

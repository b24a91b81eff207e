"""Supervisor: whatever fails, it connects again; up and down follow one another."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.errors import ConnectionFailedError
from protoflow.transport.kit.backoff import Backoff
from protoflow.transport.kit.supervisor import Supervisor

from tests.transport.kit.virtual import virtual_time


@settings(deadline=None)
@given(
    attempts=st.lists(st.sampled_from(["refused", "bug", "connected"]), max_size=12),
    lost=st.sampled_from(["returns", "raises"]),
)
def test_it_connects_until_it_is_connected(attempts: list[str], lost: str) -> None:
    events: list[str] = []
    outcomes = iter([*attempts, "connected"])
    done = asyncio.Event()

    async def connect() -> int:
        outcome = next(outcomes, None)
        if outcome is None:
            done.set()
            await asyncio.Event().wait()
        if outcome == "refused":
            raise ConnectionFailedError("refused")
        if outcome == "bug":
            raise ZeroDivisionError
        return 1

    async def watch(_: int) -> str:
        await asyncio.sleep(1.0)
        if lost == "raises":
            raise OSError("reset")
        return "lost"

    async def run() -> float:
        with virtual_time() as clock:
            supervisor = Supervisor(
                connect,
                watch,
                up=lambda _: events.append("up"),
                down=events.append,
                clock=clock,
                backoff=Backoff(1.0, 4.0),
            )
            supervisor.start(0)
            await done.wait()
            await supervisor.stop()
            await supervisor.stop()
            return clock.monotonic()

    asyncio.run(run())
    reason = "OSError: reset" if lost == "raises" else "lost"
    expected = [reason]
    for outcome in [*attempts, "connected"]:
        if outcome == "connected":
            expected += ["up", reason]
        else:
            expected.append("refused [PF302]" if outcome == "refused" else "ZeroDivisionError")
    assert events == expected


async def test_waits_grow_until_it_is_connected() -> None:
    times: list[float] = []
    with virtual_time() as clock:
        failures = iter([True, True, False, True, False])

        async def connect() -> None:
            times.append(clock.monotonic())
            if next(failures):
                raise ConnectionFailedError("refused")
            if len(times) == 5:
                finished.set()

        async def watch(_: None) -> str:
            return "lost"

        finished = asyncio.Event()
        supervisor = Supervisor[None](
            connect, watch, up=_ignore, down=_ignore, clock=clock, backoff=Backoff(1.0, 8.0)
        )
        start = clock.monotonic()
        supervisor.start(None)
        await finished.wait()
        await supervisor.stop()
    assert [time - start for time in times] == [1.0, 3.0, 7.0, 8.0, 10.0]


async def test_a_callback_that_fails_does_not_end_it() -> None:
    connected = asyncio.Event()
    with virtual_time() as clock:

        async def connect() -> None:
            connected.set()

        async def watch(_: None) -> str:
            return "lost"

        def fail(_: object) -> None:
            raise ZeroDivisionError

        supervisor = Supervisor[None](
            connect, watch, up=fail, down=fail, clock=clock, backoff=Backoff(1.0, 8.0)
        )
        supervisor.start(None)
        for _ in range(3):
            connected.clear()
            await connected.wait()
        await supervisor.stop()


def _ignore(_: object) -> None:
    pass


def test_a_cancellation_that_the_client_takes_for_the_end_ends_it_all_the_same() -> None:
    """As `wait_for` does if what it waits for fails in the same turn of the loop."""
    connects = 0

    async def connect() -> int:
        nonlocal connects
        connects += 1
        return 1

    async def watch(_: int) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("closed") from None
        return "lost"

    async def run() -> None:
        with virtual_time() as clock:
            supervisor = Supervisor(
                connect,
                watch,
                up=lambda _: None,
                down=lambda _: None,
                clock=clock,
                backoff=Backoff(1.0, 4.0),
            )
            supervisor.start(0)
            await asyncio.sleep(0)
            await supervisor.stop()

    asyncio.run(run())
    assert not connects

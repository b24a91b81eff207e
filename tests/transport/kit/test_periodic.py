"""Calls at an interval: no exception ends them, and the last one is reported."""

from __future__ import annotations

import asyncio
import logging

import pytest
from protoflow.errors import TransportError
from protoflow.transport.kit.periodic import Periodic


async def test_no_exception_ends_the_calls(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Exception | None] = [TransportError("away"), KeyError("bug"), None]
    problems: list[str | None] = []
    done = asyncio.Event()

    async def call() -> None:
        problems.append(periodic.problem)
        if not answers:
            done.set()
            return
        if (answer := answers.pop(0)) is not None:
            raise answer

    periodic = Periodic(0.001, call)
    with caplog.at_level(logging.ERROR, "protoflow.transport.kit"):
        periodic.start()
        await asyncio.wait_for(done.wait(), 5)
    await periodic.stop()
    assert problems == [None, "away [PF301]", "KeyError: 'bug'", None]
    assert [each.message for each in caplog.records] == ["a periodic call failed"]


async def test_stopping_cancels_the_call_under_way() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def call() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    periodic = Periodic(0.001, call)
    await periodic.stop()  # before it was started
    periodic.start()
    await asyncio.wait_for(begun.wait(), 5)
    await periodic.stop()
    await periodic.stop()
    assert cancelled.is_set()

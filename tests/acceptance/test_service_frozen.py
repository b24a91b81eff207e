"""A broker that is there and does not answer: the end of a process does not wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import Harness, Seen, handler, method
from tests.acceptance.targets import Target
from tests.acceptance.test_service_crash import Programs
from tests.brokers import BrokerUnavailable, start_own
from tests.brokers.base import RunningBroker

pytestmark = pytest.mark.timeout(240)

SHUTDOWN = 3.0
#: Far above what the deadline and a busy machine need, far below what any client waits by itself.
MARGIN = 9.0


@asynccontextmanager
async def _own(target: Target, directory: Path) -> AsyncIterator[tuple[Harness, RunningBroker]]:
    if target.broker is None:
        pytest.skip("capability: a server")
    stack = contextlib.ExitStack()
    try:
        broker = await asyncio.to_thread(stack.enter_context, start_own(target.broker))
    except BrokerUnavailable:
        pytest.skip(f"broker: {target.broker}")
    try:
        scheme = {"jetstream": "jetstream"}.get(target.name)
        url = broker.url.replace("nats://", f"{scheme}://") if scheme else broker.url
        yield Harness(target, url, directory), broker
    finally:
        broker.signal(signal.SIGCONT)
        await asyncio.to_thread(stack.close)


@pytest.mark.parametrize("service", ["Work", "Transform"])
async def test_shutdown_ends_in_time_though_the_broker_is_frozen(
    target: Target, tmp_path: Path, service: str
) -> None:
    async with _own(target, tmp_path) as (harness, broker):
        programs = Programs(harness)
        settings: dict[str, Any] = {"shutdown_timeout": SHUTDOWN}
        if target.name == "nats":  # which refuses the retries of the contract
            settings["handlers"] = {method(service): {"retry": {"max_attempts": 1}}}
        try:
            await harness.open()
            if harness.capabilities.durable:
                await harness.prepare(handler(service, Seen(harness).ok))
            program = await programs.start(service, seconds=0.5, settings=settings)
            await harness.send(*range(200))
            await program.until(lambda program: len(program.ended) > 5)
            broker.signal(signal.SIGSTOP)
            await asyncio.sleep(1.0)
            program.process.send_signal(signal.SIGTERM)
            loop = asyncio.get_running_loop()
            began = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(90):
                    await program.process.wait()
            took = loop.time() - began
            assert took < SHUTDOWN + MARGIN, f"{took:.0f} s at a shutdown_timeout of {SHUTDOWN:.0f}"
        finally:
            broker.signal(signal.SIGCONT)
            await programs.close()
            await harness.close()

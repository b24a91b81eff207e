"""The trace of a seed depends on nothing but the seed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow.context import Context
from protoflow.ids import new_id
from protoflow.service.service import Service
from protoflow.testing import Scenario, ServiceProcess, SimulationFailed, simulate
from protoflow.testing.simulation.determinism import determined
from protoflow.testing.simulation.loop import SimulatedLoop
from protoflow.testing.transports.tasks import task_handler

from tests.simulation.program import trace
from tests.simulation.sagas import FREE, orders

#: Numbers by which the addresses of objects are multiplied, so sets have another order with each.
SCRAMBLES = (1, 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


@pytest.mark.parametrize("as_", ["sqlite", "jetstream", "rabbitmq", "kafka"])
def test_the_addresses_of_objects_change_nothing(as_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trace(as_, 3)  # what is imported at the first run is there
    scramble = [1]

    def scrambled(self: object) -> int:
        return id(self) * scramble[0] >> 7 & sys.maxsize

    class Future(asyncio.Future[object]):
        __hash__ = scrambled

    class Task(asyncio.Task[object]):
        __hash__ = scrambled

    monkeypatch.setattr(SimulatedLoop, "task_class", Task)
    monkeypatch.setattr(SimulatedLoop, "create_future", lambda loop: Future(loop=loop))
    for identified in compared_by_identity():
        monkeypatch.setattr(identified, "__hash__", scrambled)
    for each in SCRAMBLES:
        scramble[0] = each
        assert trace(as_, 3) == first


def compared_by_identity() -> Iterator[type]:
    """The classes of the runtime whose objects lie in sets in the order of their addresses."""
    modules = [module for name, module in sys.modules.items() if name.startswith("protoflow.")]
    for module in modules:
        for found in vars(module).values():
            here = isinstance(found, type) and found.__module__ == module.__name__
            if here and found.__hash__ is object.__hash__:
                yield found


def test_what_other_threads_do_changes_nothing() -> None:
    first, over = trace("sqlite", 4), threading.Event()

    def disturb() -> None:
        while not over.is_set():
            os.urandom(1)
            random.random()
            new_id()
            assert time.time() > 0

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert trace("sqlite", 4) == first
    finally:
        over.set()
        thread.join()


def test_other_threads_have_the_real_time() -> None:
    times: list[float] = []
    asked, answered = threading.Event(), threading.Event()

    def look() -> None:
        asked.wait()
        times.append(time.monotonic())
        answered.set()

    thread = threading.Thread(target=look)
    thread.start()
    before = time.monotonic()
    with determined(1, lambda: -5.0):
        assert time.monotonic() == time.process_time() == -5.0
        asked.set()
        answered.wait()
    thread.join()
    assert times[0] >= before


def test_an_import_takes_nothing_from_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "draws_when_it_is_imported"
    (tmp_path / f"{name}.py").write_text(
        "import os, random, uuid\nos.urandom(8), random.random(), uuid.uuid4()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def draws() -> list[object]:
        with determined(1, lambda: 5.0):
            __import__(name)
            return [os.urandom(8), random.random(), new_id()]

    first = draws()
    assert name in sys.modules
    assert draws() == first
    del sys.modules[name]
    assert draws() == first


def test_a_service_starts_no_thread() -> None:
    def threaded(process: ServiceProcess) -> Service:
        async def work(order: StringValue, context: Context) -> None:
            threading.Thread(target=print, name="mine").start()

        return process.service(task_handler(work, "orders", "threaded", FREE))

    with pytest.raises(SimulationFailed, match=r"determinism: .* thread 'mine'; a seed"):
        simulate(threaded, scenario=Scenario(publish=orders, faults=0, crashes=0), seeds=1)

"""Python's collector while a service runs, and after."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from protoflow import Config, Service
from protoflow.service.gc_tuning import raised_threshold


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.enable()
    gc.unfreeze()


def test_the_threshold_is_raised_and_comes_back() -> None:
    before = gc.get_threshold()
    with raised_threshold(50_000):
        assert gc.get_threshold() == (50_000, *before[1:])
        assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("threshold", [0, 100, 80_000])
def test_what_somebody_has_set_higher_stays(threshold: int) -> None:
    gc.set_threshold(90_000)
    with raised_threshold(threshold):
        assert gc.get_threshold()[0] == 90_000
        assert gc.get_freeze_count() == 0


def test_what_was_frozen_before_stays_frozen() -> None:
    gc.freeze()  # as a server that forks its workers
    frozen = gc.get_freeze_count()
    with raised_threshold(50_000):
        assert gc.get_threshold()[0] == 50_000
    assert gc.get_freeze_count() >= frozen // 2 > 0


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with raised_threshold(50_000):
        assert not gc.isenabled()
        assert gc.get_freeze_count() == 0


async def _threshold_while_running(config: Config) -> int:
    seen = 0

    async def look(service: Service) -> None:
        nonlocal seen
        while not service.health().ready:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        seen = gc.get_threshold()[0]
        service.request_stop()

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[None]:
        looking = asyncio.create_task(look(service))
        yield
        await looking

    await Service(config, lifespan=lifespan).run()
    return seen


async def test_run_raises_it_and_gives_it_back() -> None:
    before = gc.get_threshold()
    assert await _threshold_while_running(Config(transport="memory://")) == 50_000
    assert gc.get_threshold() == before


async def test_a_service_that_is_reported_so_leaves_it() -> None:
    before = gc.get_threshold()
    config = Config(transport="memory://", gc_threshold=0)
    assert await _threshold_while_running(config) == before[0]


async def test_a_service_within_a_program_of_others_leaves_it() -> None:
    before = gc.get_threshold()
    async with Service(Config(transport="memory://")):
        assert gc.get_threshold() == before

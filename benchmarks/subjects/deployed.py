"""A service as it is deployed: by `run`, which also sets how often Python looks for garbage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protoflow import Service


@asynccontextmanager
async def deployed(service: Service) -> AsyncIterator[None]:
    """Within, the service is ready; it drains on leaving."""
    running = asyncio.create_task(service.run())
    while not service.health().ready:
        if running.done():
            await running
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        service.request_stop()
        await running

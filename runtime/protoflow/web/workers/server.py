"""The server of a parent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from protoflow.config.settings import Config
from protoflow.web.application import Application
from protoflow.web.routes import ROUTES
from protoflow.web.server import WebServer
from protoflow.web.workers.gateway import Gateway


@asynccontextmanager
async def served(config: Config, sockets: Sequence[str]) -> AsyncIterator[int]:
    """Serves the pages of all workers during the block; yields the port.

    Args:
        config: the addresses to bind, tokens and origins.
        sockets: the sockets of the workers.

    Raises:
        ConfigError: a port is taken.
    """
    gateway = Gateway(sockets)
    server = WebServer(config)
    try:
        apart = config.metrics_port not in (0, config.http_port)
        pages = [route for route in ROUTES if not (apart and route.path == "/metrics")]
        port = await server.serve(Application(config, pages, gateway.answer), config.http_port)
        if apart:
            metrics = [route for route in ROUTES if route.path == "/metrics"]
            await server.serve(Application(config, metrics, gateway.answer), config.metrics_port)
        yield port
    finally:
        gateway.end()
        await server.stop()
        await gateway.close()

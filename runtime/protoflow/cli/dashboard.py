"""`protoflow dashboard`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import click

from protoflow.cli import contract, logs, settings
from protoflow.config import Config
from protoflow.config.named_transports import DEFAULT
from protoflow.connection import Connection
from protoflow.contract.catalog import Catalog
from protoflow.routing.routes import shown_transports
from protoflow.routing.transport import part_of
from protoflow.service.signals import handled_signals


@click.command("dashboard")
@settings.connects
@settings.reads_contract
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8081, show_default=True,
    help="Port of the dashboard.",
)  # fmt: skip
def command(
    transport: str | None, config_file: str | None, contract_name: str | None, port: int
) -> None:
    """Serve the dashboard over a broker, without handlers, until Ctrl-C.

    It shows lag, topology, dead letters, single messages and the contract, and can replay and
    purge. Facts of a process, such as run times of handlers, are in the dashboard of the service.
    """
    config = settings.broker_of(transport, config_file)
    catalog = contract.optional(contract_name)
    logs.configure("text", "WARNING")
    asyncio.run(_serve(config, catalog, port))


async def _serve(config: Config, catalog: Catalog, port: int) -> None:
    from protoflow.web.neighbours import Neighbours
    from protoflow.web.pages import pages_of
    from protoflow.web.server import WebServer
    from protoflow.web.standalone import standalone

    ended = asyncio.Event()
    async with Connection(config) as connection, AsyncExitStack() as resources:
        host = standalone(connection, config, catalog)
        if config.http_processes:
            listening = Neighbours(part_of(connection.transport, DEFAULT), config, None)
            host.neighbours = await resources.enter_async_context(listening)
        server = WebServer(config)
        try:
            bound = await server.serve(pages_of(host), port)
            shown = shown_transports(config)
            click.echo(f"http://{_name(config.http_host)}:{bound}/ shows {shown}")
            with handled_signals(lambda _signal: ended.set()):
                await ended.wait()
        finally:
            host.live.end()
            await server.stop()


def _name(host: str) -> str:
    """Returns the host name that a browser on this machine uses."""
    return {"0.0.0.0": "localhost", "::": "localhost", "::1": "[::1]"}.get(host, host)  # noqa: S104

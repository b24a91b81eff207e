"""`protoflow relay`."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import click

from protoflow.cli import logs, settings
from protoflow.error_codes import NO_OUTBOX
from protoflow.errors import ConfigError
from protoflow.service import Service


@click.command("relay")
@settings.connects
@click.option("--outbox", metavar="URL", help="URL of the database of the outbox.")
@click.option("--http", type=click.IntRange(1, 65535), help="Port of the HTTP pages.")
@settings.logs_records
def command(transport: str | None, config_file: str | None, **options: Any) -> None:
    """Publish what applications write to an outbox, until Ctrl-C or SIGTERM.

    The tables are created if they are missing, unless topology is verify or none. Several relays
    share an outbox in PostgreSQL. In SQLite one relay publishes, and the others stand by.
    """
    if options["outbox"]:
        os.environ["PROTOFLOW_OUTBOX"] = options["outbox"]
    if options["http"]:
        os.environ["PROTOFLOW_HTTP_PORT"] = str(options["http"])
    config = settings.broker_of(transport, config_file)
    if config.outbox_url is None:
        raise ConfigError(settings.NO_OUTBOX, code=NO_OUTBOX)
    logs.configure(options["log_format"], options["log_level"])
    service = Service(config)
    click.echo(f"relaying {config.outbox_url.safe} to {config.url.safe}")
    asyncio.run(service.run())

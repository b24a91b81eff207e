"""`protoflow doctor`."""

from __future__ import annotations

import asyncio

import click

from protoflow.cli import contract, diagnostics, looking, settings
from protoflow.cli.generate import protoc
from protoflow.config import Config
from protoflow.routing.routes import shown_transports


@click.command("doctor")
@settings.connects
@settings.prints_json
@click.pass_context
def command(
    ctx: click.Context, /, transport: str | None, config_file: str | None, as_json: bool
) -> None:
    """Check the installation, the settings, the contract and the connection to the broker."""

    def connect() -> str:
        config = settings.broker_of(transport, config_file)
        asyncio.run(_connect(config))
        return f"connected to {shown_transports(config)}"

    def read_contract() -> str:
        return ", ".join(file.source for file in contract.load(None).files)

    results = [
        diagnostics.examined("Python", diagnostics.python),
        diagnostics.examined("Protoflow", diagnostics.versions),
        diagnostics.examined("protoc", protoc.versions),
        diagnostics.examined("contract", read_contract),
        diagnostics.examined("broker", connect),
    ]
    ctx.exit(diagnostics.report(results, as_json=as_json))


async def _connect(config: Config) -> None:
    async with looking.connection(config):
        pass

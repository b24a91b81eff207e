"""`protoflow check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from protoflow.cli import contract, diagnostics, plan, settings
from protoflow.config import Config
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import Effects
from protoflow.counted import counted
from protoflow.error_codes import NO_CONTRACT
from protoflow.errors import ProtoflowError
from protoflow.routing.routes import shown_transports


@click.command("check")
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
) -> None:
    """Check settings and contract as a start of the service would, without a broker.

    Run it in CI before a deploy. It exits with 1 if a check fails.
    """
    found: dict[str, Any] = {}

    def read_settings() -> str:
        config = found["config"] = settings.config_of(transport, config_file)
        return f"transport {shown_transports(config)}"

    def read_contract() -> str:
        catalog = found["catalog"] = contract.load(contract_name)
        messages = counted(len(catalog.messages), "message")
        return f"{messages}, {counted(len(catalog.methods), 'method')}"

    results = [
        diagnostics.examined("settings", read_settings),
        diagnostics.examined("contract", read_contract),
    ]
    if {"config", "catalog"} <= found.keys():
        results.append(
            diagnostics.examined("plan", lambda: _planned(found["catalog"], found["config"]))
        )
    if any(Path().rglob("*.proto")):
        results.append(diagnostics.examined("generated code", diagnostics.up_to_date))
    ctx.exit(diagnostics.report(results, as_json=as_json))


def _planned(catalog: Catalog, config: Config) -> str:
    """Checks that the transport can meet the demands of the contract."""
    handlers = plan.planned(catalog, config).handlers
    skipping = [one.registration.name for one in handlers if str(one.policy.unhandled) == "skip"]
    if not handlers:
        raise ProtoflowError("the contract has no method that consumes", code=NO_CONTRACT)
    used = sorted({handler.transport for handler in handlers})
    schemes = [config.transport_named(name).url.scheme for name in used]
    note = f"{counted(len(handlers), 'handler')} on {', '.join(schemes)}"
    if skipping:
        # While two versions of a service run, the older one would drop new types.
        note += f"; types without a handler are skipped in {counted(len(skipping), 'subscription')}"
    once = [one for one in handlers if one.registration.effects is Effects.EXACTLY_ONCE]
    if once:
        note += f"; {counted(len(once), 'handler')} with effects exactly once: give an inbox"
    return note

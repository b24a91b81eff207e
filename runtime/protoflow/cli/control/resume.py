"""`protoflow resume`."""

from __future__ import annotations

import click

from protoflow.cli.control.action import act, acts, report
from protoflow.cli.control.client import Client


@click.command("resume")
@acts
def command(handler: str | None, url: str, as_json: bool) -> None:
    """Resume HANDLER, or all handlers, of one process.

    The token comes from PROTOFLOW_HTTP_TOKEN.
    """
    report("resume", act(Client(url), "resume", handler), as_json=as_json)

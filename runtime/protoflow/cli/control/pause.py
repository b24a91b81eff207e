"""`protoflow pause`."""

from __future__ import annotations

import click

from protoflow.cli.control.action import act, acts, report
from protoflow.cli.control.client import Client


@click.command("pause")
@acts
def command(handler: str | None, url: str, as_json: bool) -> None:
    """Take and start nothing more in one process: for HANDLER, or for all its handlers.

    It acts on the subscription of HANDLER, so on all handlers of its topic and group in that
    process. Handlers that run go on, and so do other processes of the group. The token comes from
    PROTOFLOW_HTTP_TOKEN.
    """
    report("pause", act(Client(url), "pause", handler), as_json=as_json)

"""`protoflow pause`."""

from __future__ import annotations

import click

from protoflow.cli.control.action import act, acts, report
from protoflow.cli.control.client import Client


@click.command("pause")
@acts
def command(handler: str | None, url: str, as_json: bool) -> None:
    """Pause HANDLER, or all handlers, of one process.

    The command acts on the whole subscription of HANDLER: all handlers of its topic and group in
    that process. Running handlers continue, and so do other processes of the group. The token
    comes from PROTOFLOW_HTTP_TOKEN.
    """
    report("pause", act(Client(url), "pause", handler), as_json=as_json)

"""`protoflow drain`."""

from __future__ import annotations

import time
from typing import Any

import click

from protoflow.cli.control.action import act, acts, report
from protoflow.cli.control.client import Client
from protoflow.cli.exits import ExitCode
from protoflow.cli.values import Finite

_POLL = 0.2


@click.command("drain")
@acts
@click.option(
    "--timeout",
    type=Finite(0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the drain.",
)
@click.pass_context
def command(
    ctx: click.Context, /, handler: str | None, url: str, as_json: bool, timeout: float
) -> None:
    """Finish running handlers of a process, give back other messages, and leave the group.

    The command acts on the whole subscription of HANDLER: all handlers of its topic and group in
    that process. Other processes of the group take over. The process keeps running; restart it to
    consume again. The exit code is 4 if the drain does not end in time. The token comes from
    PROTOFLOW_HTTP_TOKEN.
    """
    client = Client(url)
    answer = act(client, "drain", handler)
    wanted = {one["name"] for process in answer["processes"] for one in process["subscriptions"]}
    deadline = time.monotonic() + timeout
    while not _drained(answer) and time.monotonic() < deadline:
        time.sleep(_POLL)
        answer = client.ask("GET", "processes")
        for process in answer["processes"]:
            process["subscriptions"] = [
                one for one in process["subscriptions"] if one["name"] in wanted
            ]
    report("drain", answer, as_json=as_json)
    ctx.exit(ExitCode.DONE if _drained(answer) else ExitCode.PARTLY)


def _drained(answer: Any) -> bool:
    return all(
        one["state"] == "drained"
        for process in answer["processes"]
        for one in process["subscriptions"]
    )

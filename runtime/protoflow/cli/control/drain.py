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
    "--timeout", type=Finite(0), default=60.0, show_default=True, help="Seconds to wait for it."
)
@click.pass_context
def command(
    ctx: click.Context, /, handler: str | None, url: str, as_json: bool, timeout: float
) -> None:
    """Finish what runs in one process, give back the rest, and leave the group.

    It acts on the subscription of HANDLER, so on all handlers of its topic and group in that
    process, or on all subscriptions. The process stays, and consumes again when it is restarted;
    other processes of the group take over. Exits with 4 if it is not drained in time. The token
    comes from PROTOFLOW_HTTP_TOKEN.
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

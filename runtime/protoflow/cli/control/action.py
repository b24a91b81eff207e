"""The common parts of `pause`, `resume` and `drain`: options, request and report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from protoflow.cli import output, settings
from protoflow.cli.control.client import Client

F = TypeVar("F", bound=Callable[..., Any])

_COLUMNS = ("host", "pid", "subscription", "state", "in_flight", "handlers")


def acts(command: F) -> F:
    """Adds HANDLER, --url and --json."""
    for option in (
        settings.prints_json,
        click.option("--url", required=True, help="HTTP pages, such as http://127.0.0.1:8080."),
        click.argument("handler", required=False),
    ):
        command = option(command)
    return command


def act(client: Client, verb: str, handler: str | None) -> Any:
    """Requests the action. Returns the processes with the affected subscriptions.

    Raises:
        ConnectionFailedError, AuthenticationError, click.UsageError: see `Client.ask`.
    """
    return client.ask("POST", *(("handlers", handler) if handler else ()), verb)


def report(verb: str, answer: Any, *, as_json: bool) -> None:
    """Prints the state of each process; on stderr, notes about the scope of the action."""
    if as_json:
        output.as_json(answer)
    else:
        rows = [
            {
                "host": process["host"],
                "pid": process["pid"],
                "subscription": subscription["name"],
                "state": subscription["state"],
                "in_flight": subscription["in_flight"],
                "handlers": ", ".join(subscription["handlers"]),
            }
            for process in answer["processes"]
            for subscription in process["subscriptions"]
        ]
        output.table(rows, _COLUMNS, empty="no subscription runs in this process")
    click.echo(
        f"{verb} acts on whole subscriptions of this process, not on other processes of the group",
        err=True,
    )

"""`protoflow outbox`: the messages that a relay parked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

from protoflow.cli import output, settings
from protoflow.cli.exits import ExitCode
from protoflow.counted import counted
from protoflow.error_codes import NO_OUTBOX
from protoflow.errors import ConfigError
from protoflow.outbox import Parked, PostgresOutbox, SQLiteOutbox
from protoflow.outbox.configured import outbox_at

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
#: The most messages that `list` shows, and the number that is read at once.
_MOST, _PAGE = 10_000, 1000
_COLUMNS = ("position", "id", "topic", "reason")


def _reaches(command: F) -> F:
    for option in (
        settings.prints_json,
        click.option(
            "--config", "config_file", metavar="FILE", help="TOML file with the settings."
        ),
        click.option("--outbox", metavar="URL", help="URL of the database of the outbox."),
    ):
        command = option(command)
    return command


def _changes(command: F) -> F:
    for option in (
        click.option("--all", "everything", is_flag=True, help="All parked messages."),
        click.argument("positions", nargs=-1, type=int),
    ):
        command = option(command)
    return _reaches(command)


@click.group("outbox")
def command() -> None:
    """List, retry or purge messages that the broker refused and a relay parked.

    Parked messages do not hold up later messages of their keys. A relay may run meanwhile.
    """


@command.command("list")
@_reaches
@click.option("--limit", type=click.IntRange(1, _MOST), default=100, help="Most messages to list.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if a message is parked.")
@click.pass_context
def list_(
    ctx: click.Context, /, outbox: str | None, config_file: str | None, as_json: bool, limit: int,
    exit_code: bool,
) -> None:  # fmt: skip
    """List parked messages, the oldest first."""
    found = asyncio.run(_with(outbox, config_file, lambda store: store.parked(limit)))
    rows = [_row(each) for each in found]
    if as_json:
        output.as_json(rows)
    else:
        output.table(rows, _COLUMNS, empty="nothing is parked")
    if rows and exit_code:
        ctx.exit(ExitCode.FINDING)


@command.command("retry")
@_changes
def retry(
    outbox: str | None, config_file: str | None, as_json: bool, everything: bool,
    positions: Sequence[int],
) -> None:  # fmt: skip
    """Publish parked messages again, after later messages of their keys."""

    async def change(store: PostgresOutbox | SQLiteOutbox) -> int:
        wanted = await _wanted(store, positions, everything)
        await store.unpark(wanted)
        return len(wanted)

    _report("retried", asyncio.run(_with(outbox, config_file, change)), as_json)


@command.command("purge")
@_changes
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(
    outbox: str | None, config_file: str | None, as_json: bool, everything: bool,
    positions: Sequence[int], yes: bool,
) -> None:  # fmt: skip
    """Delete parked messages permanently."""

    async def change(store: PostgresOutbox | SQLiteOutbox) -> int:
        wanted = await _wanted(store, positions, everything)
        if wanted and not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("to purge without confirmation, give --yes")
            click.confirm(f"purge {counted(len(wanted), 'message')}?", abort=True, err=True)
        await store.delete(wanted)
        return len(wanted)

    _report("purged", asyncio.run(_with(outbox, config_file, change)), as_json)


async def _wanted(
    store: PostgresOutbox | SQLiteOutbox, positions: Sequence[int], everything: bool
) -> list[int]:
    """Returns the parked positions that the user selected. Raises UsageError."""
    if bool(positions) == everything:
        raise click.UsageError("give positions, as `protoflow outbox list` prints them, or --all")
    parked: list[int] = []
    while page := await store.parked(_PAGE, after=parked[-1] if parked else 0):
        parked += [each.position for each in page]
    unknown = sorted(set(positions) - set(parked))
    if unknown:
        raise click.UsageError(f"nothing is parked at {', '.join(map(str, unknown))}")
    return parked if everything else sorted(set(positions))


async def _with(
    outbox: str | None,
    config_file: str | None,
    work: Callable[[PostgresOutbox | SQLiteOutbox], Awaitable[T]],
) -> T:
    config = settings.config_of(None, config_file, outbox=outbox)
    if config.outbox_url is None:
        raise ConfigError(settings.NO_OUTBOX, code=NO_OUTBOX)
    store = outbox_at(config.outbox_url, config.topology)
    try:
        return await work(store)
    finally:
        await store.close()


def _row(parked: Parked) -> dict[str, Any]:
    return {
        "position": parked.position,
        "id": parked.message.id,
        "topic": parked.message.topic,
        "reason": parked.reason,
    }


def _report(verb: str, count: int, as_json: bool) -> None:
    if as_json:
        output.as_json({"done": count})
    else:
        click.echo(f"{verb} {counted(count, 'message')}")

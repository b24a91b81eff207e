"""`dlq replay` and `dlq purge`: selection, preview, confirmation and report."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import click

from protoflow.cli import output, settings
from protoflow.cli.dlq.access import Access, all_of
from protoflow.cli.dlq.filters import Selection, filters
from protoflow.cli.exits import ExitCode
from protoflow.cli.values import Finite
from protoflow.counted import counted
from protoflow.dead_letters import DeadLetters
from protoflow.errors import DeadLetterNotFoundError, ReplayError

F = TypeVar("F", bound=Callable[..., Any])
#: Changes the dead letters with these ids in a topic; returns their number.
_Act: TypeAlias = Callable[[DeadLetters, str, Sequence[str]], Awaitable[int]]


def changes(action: F) -> F:
    """Adds the common options of changing commands: selection, preview and confirmation."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Count the dead letters, and change nothing."),
        click.option(
            "--all", "everything", is_flag=True, help="All dead letters that match the filters."
        ),
        click.argument("ids", nargs=-1),
    ):
        action = option(action)
    return action


@click.command("replay")
@changes
@settings.connects
@settings.reads_contract
@settings.prints_json
@filters
@click.option("--to-origin", is_flag=True, help="To all groups of the original topic.")
@click.option(
    "--to", "topic_name", metavar="TOPIC", help="To this topic, or the topic of this type."
)
@click.option("--reprocess", is_flag=True, help="Also messages that an inbox has noted as handled.")
@click.option("--rate", type=Finite(0, min_open=True), help="Most replays a second.")
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    *,
    selection: Selection,
    to_origin: bool,
    topic_name: str | None,
    reprocess: bool,
    rate: float | None,
    **where: Any,
) -> None:
    """Give dead letters back to the group that failed, with their attempts reset."""
    if to_origin and topic_name:
        raise click.UsageError("give --to-origin or --to, not both")
    if reprocess and (to_origin or topic_name):
        raise click.UsageError("--reprocess is for the group that failed; leave out --to")
    access = Access(selection, where)
    to = access.destination(topic_name) if topic_name else ""

    async def act(dead_letters: DeadLetters, topic: str, ids: Sequence[str]) -> int:
        return await dead_letters.replay(
            topic, ids, to_origin=to_origin, to=to, filter=selection.filter, reprocess=reprocess
        )

    ctx.exit(_change("replay", act, access, selection, where | {"rate": rate}))


@click.command("purge")
@changes
@settings.connects
@settings.reads_contract
@settings.prints_json
@filters
@click.pass_context
def purge(ctx: click.Context, /, *, selection: Selection, **where: Any) -> None:
    """Delete dead letters for good."""

    async def act(dead_letters: DeadLetters, topic: str, ids: Sequence[str]) -> int:
        return await dead_letters.purge(topic, ids, filter=selection.filter)

    ctx.exit(_change("purge", act, Access(selection, where), selection, where | {"rate": None}))


def _change(
    verb: str,
    act: _Act,
    access: Access,
    selection: Selection,
    where: dict[str, Any],
) -> ExitCode:
    """Selects, previews, asks, acts and reports."""
    ids, everything = where["ids"], where["everything"]
    if not ids and not everything and not selection.is_filter:
        raise click.UsageError("name ids, give a filter, or give --all")
    if ids and everything:
        raise click.UsageError("give ids or --all, not both")
    return access.run(
        lambda dead_letters: _changed(dead_letters, verb, act, access, selection, where)
    )


async def _changed(
    dead_letters: DeadLetters,
    verb: str,
    act: _Act,
    access: Access,
    selection: Selection,
    where: dict[str, Any],
) -> ExitCode:
    wanted = frozenset(where["ids"])
    chosen = {
        topic: [
            record.message.id
            async for record in all_of(dead_letters, topic, selection)
            if not wanted or record.message.id in wanted
        ]
        for topic in access.topics
    }
    missing = wanted.difference(*chosen.values())
    if missing:
        raise DeadLetterNotFoundError(
            f"no dead letter {', '.join(sorted(missing))} in {', '.join(access.topics)}"
        )
    matched = sum(map(len, chosen.values()))
    for topic, found in chosen.items():
        if found:
            click.echo(f"{verb} {len(found)} of {topic}", err=True)
    report: dict[str, Any] = {"matched": matched, "done": 0, "failed": {}}
    if matched and not where["dry_run"]:
        if not where["yes"] and not _confirmed(verb, matched):
            raise click.Abort
        for topic, found in chosen.items():
            async for ids in _paced(found, where["rate"]):
                await _act(act, dead_letters, topic, ids, report)
    if where["as_json"]:
        output.as_json(report)
    else:
        for id, reason in report["failed"].items():
            click.echo(f"left {id}: {reason}", err=True)
        click.echo(f"{matched} matched, {report['done']} done, {len(report['failed'])} failed")
    return ExitCode.PARTLY if report["failed"] else ExitCode.DONE


async def _paced(ids: Sequence[str], rate: float | None) -> AsyncIterator[Sequence[str]]:
    """Yields the ids in portions, so that the rate per second is not exceeded."""
    started = time.monotonic()
    ids = [*dict.fromkeys(ids)]  # duplicates are changed together
    size = max(1, int(rate)) if rate else max(1, len(ids))
    for start in range(0, len(ids), size):
        if rate:
            await asyncio.sleep(max(0.0, started + start / rate - time.monotonic()))
        yield ids[start : start + size]


async def _act(
    act: _Act,
    dead_letters: DeadLetters,
    topic: str,
    ids: Sequence[str],
    report: dict[str, Any],
) -> None:
    try:
        report["done"] += await act(dead_letters, topic, ids)
    except DeadLetterNotFoundError as error:  # the dead letter was removed in the meantime
        report["failed"] |= dict.fromkeys(ids, str(error))
    except ReplayError as error:
        report["done"] += error.replayed
        report["failed"] |= {id: str(reason) for id, reason in error.left.items()}


def _confirmed(verb: str, count: int) -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"to {verb} without confirmation, give --yes")
    return click.confirm(f"{verb} {counted(count, 'dead letter')}?", err=True)

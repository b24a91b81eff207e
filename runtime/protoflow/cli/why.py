"""`protoflow why`."""

from __future__ import annotations

import asyncio

import click

from protoflow.cli import contract, looking, output, plan, settings
from protoflow.cli.exits import ExitCode
from protoflow.cli.values import moment_of, seconds_of
from protoflow.codecs.printable import printable
from protoflow.config import Config
from protoflow.errors import TransportError
from protoflow.message_search import Bounds, Report, search_broker, search_journal
from protoflow.stats.dead_letters import timestamp
from protoflow.transport import Topology

_COLUMNS = ("time", "event", "where", "group", "attempt", "detail")


@click.command("why")
@click.argument("id", metavar="MESSAGE_ID")
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.option("--since", type=moment_of, metavar="TIME", help="Start of the search in topics.")
@click.option(
    "--within", type=seconds_of, default="1h", metavar="DURATION", show_default=True,
    help="Length of the search in each topic.",
)  # fmt: skip
@click.option(
    "--scan-limit", type=click.IntRange(1), default=100_000, show_default=True,
    help="Most messages to read of a topic.",
)  # fmt: skip
@click.pass_context
def command(
    ctx: click.Context,
    /,
    id: str,
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
    since: float | None,
    within: float,
    scan_limit: int,
) -> None:
    """Show what happened to a message, attempt by attempt, and what it caused.

    The command searches the journal and the broker, and lists the places that it did not search.
    It searches topics from the time in the id, or from --since. It changes nothing and joins no
    group. It exits with 1 if nothing is known of the message.
    """
    config = settings.broker_of(transport, config_file)
    report = Report(id=id)
    search_journal(config, report)
    bounds = Bounds(since=since, within=within, limit=scan_limit)
    catalog = contract.optional(contract_name)
    if catalog.files:
        topology = plan.planned(catalog, config).topology
        asyncio.run(_search(config, topology, report, bounds))
    else:
        report.not_searched.append("broker: no contract is known; give --contract MODULE")
    if as_json:
        output.as_json(report.as_dict())
    else:
        _print(report)
    if report.unreachable:
        ctx.exit(ExitCode.UNREACHABLE)
    if not report.known:
        ctx.exit(ExitCode.FINDING)


async def _search(config: Config, topology: Topology, report: Report, bounds: Bounds) -> None:
    """Adds the findings at the broker, or a note that it does not answer."""
    try:
        async with looking.connection(config, topology.subscriptions) as connection:
            await search_broker(
                connection.transport, connection.dead_letters, topology, report, bounds
            )
    except TransportError as error:
        report.add_unreachable(error)
        report.add_unknown(topology.subscriptions)


def _print(report: Report) -> None:
    if report.timeline:
        output.table([row.as_dict() for row in report.timeline], _COLUMNS, empty="")
    else:
        click.echo("not known")
    for (topic, group), state in report.groups.items():
        click.echo(f"group {printable(group)} of {printable(topic)}: {printable(state)}")
    if report.caused_by:
        click.echo(f"caused by: {printable(report.caused_by)}")
    for one in report.caused:
        click.echo(
            f"caused: {printable(one.id)} {printable(one.type)} in {printable(one.topic)} at"
            f" {timestamp(one.time)}"
        )
    if not report.caused:
        click.echo("caused: unknown")
    for place in report.searched:
        click.echo(f"searched: {place}")
    for place in report.not_searched:
        click.echo(f"not searched: {place}")

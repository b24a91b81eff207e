"""`protoflow describe`."""

from __future__ import annotations

from typing import Any

import click

from protoflow.cli import contract, output, plan, settings
from protoflow.config import Config
from protoflow.registrations.subscription_plan import HandlerPlan
from protoflow.routing.routes import Routes


@click.command("describe")
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart.")
def command(
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
    mermaid: bool,
) -> None:
    """Show each handler with its topic, group, policy and dead-letter topic."""
    config = settings.config_of(transport, config_file)
    found = plan.planned(contract.load(contract_name), config)
    routes = Routes(config)
    rows = [_row(handler, config, routes) for handler in found.handlers]
    if mermaid:
        _print_mermaid(rows, found.published)
    elif as_json:
        output.as_json({"handlers": rows, "published": list(found.published)})
    else:
        columns: tuple[str, ...]
        columns = ("handler", "topic", "group", "ordering", "attempts", "publishes", "dead_letters")
        if config.transports:
            columns += ("transport", "publishes_to")
        if any(row["source"] for row in rows):
            columns = (*columns[:2], "source", *columns[2:])
        output.table(rows, columns, empty="the contract has no method that consumes")
        for topic in found.published:
            click.echo(f"published only: {topic}")


def _row(handler: HandlerPlan, config: Config, routes: Routes) -> dict[str, Any]:
    registration, policy = handler.registration, handler.policy
    publishes = plan.topic_of(registration.publication, config)
    return {
        "handler": registration.name,
        "types": list(registration.types),
        "topic": handler.topic,
        "source": str(handler.source or ""),
        "group": handler.group,
        "ordering": str(policy.ordering),
        "concurrency": policy.concurrency,
        "attempts": policy.retry.max_attempts,
        "timeout": policy.timeout,
        "batch": registration.batch.max_messages if registration.batched else None,
        "broadcast": registration.broadcast,
        "effects": str(registration.effects),
        "atomic": policy.atomic,
        "publishes": publishes,
        "dead_letters": handler.dead_letter_topic,
        "transport": handler.transport,
        "publishes_to": routes.of_topic(publishes) if publishes else "",
    }


def _print_mermaid(rows: list[dict[str, Any]], published: tuple[str, ...]) -> None:
    click.echo("flowchart LR")
    for row in rows:
        handler = f'{_id(row["handler"])}["{row["handler"]}"]'
        click.echo(f'  {_id(row["topic"])}(["{row["topic"]}"]) -- {row["group"]} --> {handler}')
        if row["publishes"]:
            click.echo(
                f'  {_id(row["handler"])} --> {_id(row["publishes"])}(["{row["publishes"]}"])'
            )
        dead = row["dead_letters"]
        click.echo(f'  {_id(row["handler"])} -. dead letters .-> {_id(dead)}[("{dead}")]')
    for topic in published:
        click.echo(f'  {_id(topic)}(["{topic}"])')


def _id(name: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in name)

"""`protoflow replay`."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import click

from protoflow.cli import logs, settings
from protoflow.cli.replay import versions
from protoflow.cli.replay.session import Options, replay
from protoflow.cli.values import moment_of
from protoflow.contract.spec import Start
from protoflow.errors import ConfigError
from protoflow.service import Service
from protoflow.transport.topic_reader import Point

_TARGET = "MODULE[:SERVICE|:HANDLER]"


@click.command("replay")
@click.argument("topic")
@settings.connects
@settings.prints_json
@click.option("--service", metavar=_TARGET, help="The service, named as for `run`.")
@click.option(
    "--handler", metavar="NAME", help="A handler of it, or MODULE:HANDLER without --service."
)
@click.option(
    "--from", "start", required=True, metavar="TIME|POSITION|earliest", help="The first message."
)
@click.option("--to", "end", metavar="TIME|POSITION", help="Stop before it; by default at the end.")
@click.option("-n", "--number", type=click.IntRange(1), help="Stop after this number of messages.")
@click.option("--shadow", is_flag=True, help="Capture outputs instead of publishing them.")
@click.option("--against", metavar=_TARGET, help="With --shadow: compare with this version.")
@click.option("--mask", "masks", multiple=True, metavar="FIELD", help="Do not compare this field.")
@click.option(
    "--reprocess", is_flag=True, help="Also messages that an inbox has recorded as handled."
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "continue"]),
    help="After a failed run; by default stop, with --shadow continue.",
)
@click.option("--concurrency", type=click.IntRange(1), help="Replaces that of the policy.")
@click.option("--without", multiple=True, metavar="MIDDLEWARE", help="Leave out this middleware.")
@click.option("--yes", is_flag=True, help="Do not ask before outputs are published.")
@click.pass_context
def command(
    ctx: click.Context, /, topic: str, transport: str | None, config_file: str | None,
    service: str | None, handler: str | None, against: str | None, **given: Any,
) -> None:  # fmt: skip
    """Hand old messages of TOPIC to one handler, outside of its group.

    The position of the group does not move. Each message is run once: nothing is acknowledged,
    retried or dead-lettered. With --shadow, outputs are printed instead of published. With
    --against, two versions of the handler run side by side, and their differences are printed.
    TIME is ISO 8601, or an age such as 2h.
    """
    if handler and ":" in handler and service is None:
        service, handler = handler, None
    service = service or settings.project_settings().get("service")
    if service is None:
        raise click.UsageError(
            "name the service with --service MODULE, as for `protoflow run`, or set `service` in "
            "[tool.protoflow] of pyproject.toml"
        )
    if (against or given["masks"]) and not (against and given["shadow"]):
        raise click.UsageError("--against and --mask compare shadow runs: give --shadow --against")
    if given["shadow"] and given["reprocess"]:
        raise click.UsageError("a shadow run ignores inboxes anyway; leave out --reprocess")
    settings.export(transport, config_file)
    logs.configure("text", "WARNING")
    logging.getLogger("protoflow.handler").addFilter(_is_no_dead_letter)
    settings.use_working_directory()
    targets = [service, against] if against else [service]
    found = versions.services(targets)
    _check(found[0])
    options = Options(
        topic=topic, targets=targets, handler=handler, start=_start(given["start"]),
        end=None if given["end"] is None else _position(given["end"]),
        number=given["number"], shadow=given["shadow"], masks=given["masks"],
        reprocess=given["reprocess"], concurrency=given["concurrency"],
        stops=(given["on_error"] or ("continue" if given["shadow"] else "stop")) == "stop",
        without=given["without"], as_json=given["as_json"],
        confirm=lambda name, place: None if given["yes"] else _confirm(name, place),
    )  # fmt: skip
    ctx.exit(asyncio.run(replay(found, options)))


def _check(service: Service) -> None:
    """Raises ConfigError if the broker is not outside of this process."""
    if any(url.scheme == "memory" for url in service.config.urls):
        raise ConfigError(
            "memory:// exists in its process and cannot be replayed from another; give --transport "
            "URL, or set PROTOFLOW_TRANSPORT"
        )


def _confirm(handler: str, topic: str) -> None:
    """Asks before the handler runs. Raises Abort."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("to replay without confirmation, give --yes; or --shadow")
    click.confirm(
        f"run {handler} for old messages of {topic}, and publish its outputs?", abort=True, err=True
    )


def _start(text: str) -> Start | Point:
    return Start.EARLIEST if text == "earliest" else _position(text)


def _position(text: str) -> Point:
    """Returns a time, or a position, whose form is the transport's own."""
    if text.isdigit():
        return text
    try:
        return moment_of(text)
    except click.BadParameter:
        return text


def _is_no_dead_letter(record: logging.LogRecord) -> bool:
    """Leaves out the records of dead letters, because a replay makes none: it reports failures."""
    return not (isinstance(record.args, tuple) and "dead-lettered" in record.args)

"""Where a message is looked for: the journal, then topics and dead letters of the broker."""

from __future__ import annotations

import time
from typing import Any

from protoflow import ids
from protoflow.cli import looking
from protoflow.cli.why.timeline import Report
from protoflow.config import Config
from protoflow.connection import Connection
from protoflow.errors import CapabilityError, DeadLetterNotFoundError, TransportError
from protoflow.journal import JournalError, JournalReader
from protoflow.stats.dead_letters import timestamp
from protoflow.transport import MessageFinder, MessageQuery, Topology

#: No ULID of a message is older; a derived id has any time.
_FIRST = 1577836800.0  # 2020
#: How far the clock of who published may be ahead, in seconds.
_AHEAD = 86400.0
#: How much earlier than the time of its id a message may lie, in seconds.
_EARLIER = 1.0


def search_journal(config: Config, report: Report) -> None:
    """Adds what the journal knows, or why it knows nothing."""
    if not config.journal:
        report.not_searched.append(
            "journal: the settings name none; with `journal` failed runs and replays are kept"
        )
        return
    place = f"journal {config.journal}"
    try:
        with JournalReader(config.journal) as reader:
            report.add_events(reader.timeline(report.id), reader.caused(report.id))
            since, lost = reader.since, reader.lost
    except JournalError as error:
        report.not_searched.append(f"{place}: {error}")
        return
    report.searched.append(f"{place}, from {timestamp(since)} on" if since else f"{place}: empty")
    if not config.journal_successes:
        report.not_searched.append("successful runs: only journaled with journal_successes")
    if lost:
        report.not_searched.append(f"{place}: it could not keep {lost} entries")


async def search_broker(
    config: Config, topology: Topology, report: Report, bounds: dict[str, Any]
) -> None:
    """Adds what the broker knows.

    Args:
        config: the settings.
        topology: the topics and groups that are searched.
        report: gets what is found.
        bounds: `since`, `within` and `limit`, as in `MessageQuery`.
    """
    try:
        async with looking.connection(config) as connection:
            await _search_topics(connection, config, topology, report, bounds)
            await _search_dead_letters(connection, topology, report)
    except TransportError as error:
        report.unreachable = True
        report.not_searched.append(f"broker: {error}")
    report.add_unknown(topology.subscriptions)


async def _search_topics(
    connection: Connection,
    config: Config,
    topology: Topology,
    report: Report,
    bounds: dict[str, Any],
) -> None:
    finder: Any = connection.transport
    topics = sorted({*topology.topics, *(one.topic for one in topology.subscriptions)})
    if not isinstance(finder, MessageFinder):
        report.not_searched.append(
            f"{', '.join(topics)}: what lies in topics and queues of {config.url.scheme} cannot be"
            " read without taking it"
        )
        return
    since = bounds["since"]
    if since is None:
        since = _time_of(report.id)
    query = MessageQuery(
        id=report.id,
        topics=tuple(topics),
        subscriptions=topology.subscriptions,
        since=since,
        within=bounds["within"] + _EARLIER,
        limit=bounds["limit"],
    )
    report.add_found(await finder.find_message(query))


async def _search_dead_letters(connection: Connection, topology: Topology, report: Report) -> None:
    topics = sorted({topic for one in topology.subscriptions for topic in one.dead_letter_topics})
    for topic in topics:
        try:
            record = await connection.dead_letters.show(topic, report.id)
        except DeadLetterNotFoundError:
            report.searched.append(f"dead letters in {topic}")
        except (CapabilityError, TransportError) as error:
            report.not_searched.append(f"dead letters in {topic}: {error}")
        else:
            report.searched.append(f"dead letters in {topic}")
            report.add_dead_letter(topic, record)


def _time_of(id: str) -> float | None:
    """When a message with this id was published, a little earlier; None if the id does not say."""
    found = ids.time_of(id)
    known = found is not None and _FIRST <= found <= time.time() + _AHEAD
    return found - _EARLIER if known and found is not None else None

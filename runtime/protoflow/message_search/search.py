"""Searches the journal, then topics and dead letters of the broker."""

from __future__ import annotations

import time

from protoflow import ids
from protoflow.config import Config
from protoflow.counted import counted
from protoflow.dataclass_record import dataclass_record
from protoflow.dead_letters import DeadLetters
from protoflow.errors import CapabilityError, DeadLetterNotFoundError, TransportError
from protoflow.journal import JournalError, JournalReader
from protoflow.message_search.report import Report
from protoflow.stats.dead_letters import timestamp
from protoflow.transport import MessageFinder, MessageQuery, Topology, Transport

#: The time in a message's ULID is never older; a derived id has an arbitrary time.
_FIRST = 1577836800.0  # 2020
#: Seconds by which the publisher's clock may be ahead.
_AHEAD = 86400.0
#: Seconds by which a message may be stored before the time in its id.
_EARLIER = 1.0


@dataclass_record
class Bounds:
    """The part of a topic to search, if the topic is a log.

    Attributes:
        since: the start in seconds since the epoch; None means the time in the id.
        within: the length in seconds.
        limit: the highest number of messages.
    """

    since: float | None = None
    within: float = 3600.0
    limit: int = 100_000


def search_journal(config: Config, report: Report) -> None:
    """Adds the events of the journal, or the reason why there are none."""
    if not config.journal:
        report.not_searched.append(
            "journal: the settings name none; set `journal` to record failed runs and replays"
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
        report.not_searched.append(f"{place}: it lost {counted(lost, 'entry', 'entries')}")


async def search_broker(
    transport: Transport,
    dead_letters: DeadLetters,
    topology: Topology,
    report: Report,
    bounds: Bounds,
) -> None:
    """Adds the broker's findings.

    Args:
        transport: the broker, open.
        dead_letters: the dead letters of this broker.
        topology: the topics and groups to search.
        report: receives the findings.
        bounds: the part of each topic to search.
    """
    try:
        await _search_topics(transport, topology, report, bounds)
        await _search_dead_letters(dead_letters, topology, report)
    except TransportError as error:
        report.add_unreachable(error)
    report.add_unknown(topology.subscriptions)


async def _search_topics(
    transport: Transport, topology: Topology, report: Report, bounds: Bounds
) -> None:
    topics = sorted({*topology.topics, *(one.topic for one in topology.subscriptions)})
    if not isinstance(transport, MessageFinder):
        report.not_searched.append(
            f"{', '.join(topics)}: this transport cannot read messages in topics and queues "
            "without consuming them"
        )
        return
    since = _time_of(report.id) if bounds.since is None else bounds.since
    query = MessageQuery(
        id=report.id,
        topics=tuple(topics),
        subscriptions=topology.subscriptions,
        since=since,
        within=bounds.within + _EARLIER,
        limit=bounds.limit,
    )
    report.add_found(await transport.find_message(query))


async def _search_dead_letters(
    dead_letters: DeadLetters, topology: Topology, report: Report
) -> None:
    topics = sorted({topic for one in topology.subscriptions for topic in one.dead_letter_topics})
    for topic in topics:
        try:
            record = await dead_letters.show(topic, report.id)
        except DeadLetterNotFoundError:
            report.searched.append(f"dead letters in {topic}")
        except (CapabilityError, TransportError) as error:
            report.not_searched.append(f"dead letters in {topic}: {error}")
        else:
            report.searched.append(f"dead letters in {topic}")
            report.add_dead_letter(topic, record)


def _time_of(id: str) -> float | None:
    """Returns a time shortly before the id's publication; None if the id has no time."""
    found = ids.time_of(id)
    known = found is not None and _FIRST <= found <= time.time() + _AHEAD
    return found - _EARLIER if known and found is not None else None

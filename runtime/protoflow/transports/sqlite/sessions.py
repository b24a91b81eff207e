"""Sessions: they hold messages, and expire if they are not renewed.

Each subscription has one row, which its sweeper renews. If the session ends or is not renewed in
time, all its messages become free immediately.

Wall clocks jump, and a jump must not end the lease of a living process. So a lease uses the time
since the start of the machine, which its processes share. The wall clock is only used for sessions
from an earlier start or another machine.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protoflow.clock import Clock
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.sqlite.settling import order_lanes
from protoflow.transports.sqlite.topics import Session, make_group, remove_group

# A start mark only outlives a session that was not renewed: a process that ends normally ends its
# runs.
_FREE = """
UPDATE protoflow_deliveries SET token = 0, due = 0, until = 0,
  mark = CASE WHEN ?2 THEN mark ELSE 0 END
WHERE token = ?1
"""
_LANES = """
SELECT group_id, lane FROM protoflow_deliveries
WHERE token = ? AND lane IS NOT NULL GROUP BY group_id, lane
"""
_EXPIRED = """
SELECT id FROM protoflow_sessions
WHERE CASE WHEN boot = ?1 AND boot <> '' THEN deadline < ?2 ELSE expires < ?3 END
"""


def _boot() -> str:
    """Returns an identity of this start of the machine; empty if it is unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


BOOT: Final = _boot()


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, by the wall clock and since the start of the machine."""

    wall: float
    running: float

    @classmethod
    def now(cls, clock: Clock, ahead: float = 0.0) -> Moment:
        """Returns the moment now, or this many seconds later."""
        return cls(clock.now() + ahead, clock.monotonic() + ahead)


def begin(
    connection: sqlite3.Connection,
    settings: SubscriptionSettings,
    client: str,
    now: Moment,
    until: Moment,
) -> Session:
    """Joins the group, which is created if necessary; a broadcast group belongs to the session.
    Messages of dead processes are freed first."""
    end_expired(connection, now)
    name = settings.group
    id = connection.execute(
        "INSERT INTO protoflow_sessions (group_id, client, expires, boot, deadline) "
        "VALUES (0, ?, ?, ?, ?)",
        (client, until.wall, BOOT, until.running),
    ).lastrowid
    assert id is not None  # noqa: S101  for the type checker
    if settings.broadcast:
        name = f"{name}#{id}"
    group = make_group(connection, settings, name)
    connection.execute("UPDATE protoflow_sessions SET group_id = ? WHERE id = ?", (group.id, id))
    if settings.broadcast:
        connection.execute("UPDATE protoflow_groups SET session = ? WHERE id = ?", (id, group.id))
    return Session(id, group)


def renew(connection: sqlite3.Connection, session: int, until: Moment) -> bool:
    """Renews the session; returns whether it still exists."""
    query = "UPDATE protoflow_sessions SET expires = ?, deadline = ? WHERE id = ?"
    return connection.execute(query, (until.wall, until.running, session)).rowcount == 1


def end(connection: sqlite3.Connection, session: int, now: float, *, expired: bool = False) -> None:
    """Frees the messages of a session; its broadcast group ends with it."""
    lanes = connection.execute(_LANES, (session,)).fetchall()
    connection.execute(_FREE, (session, expired))
    for group, lane in lanes:
        order_lanes(connection, group, (lane,), now)
    connection.execute("DELETE FROM protoflow_sessions WHERE id = ?", (session,))
    query = "SELECT id FROM protoflow_groups WHERE session = ?"
    for (group,) in connection.execute(query, (session,)).fetchall():
        remove_group(connection, group)


def end_expired(connection: sqlite3.Connection, now: Moment) -> int:
    """Ends sessions that were not renewed; returns how many."""
    expired = connection.execute(_EXPIRED, (BOOT, now.running, now.wall)).fetchall()
    for (session,) in expired:
        end(connection, session, now.wall, expired=True)
    return len(expired)

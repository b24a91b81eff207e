"""Sessions: who holds what, and until when if nothing more is heard of them.

One row for each subscription, renewed by its sweeper. When it ends, or nobody renewed it
in time, everything it holds is free at once.

Wall clocks jump, and a lease must not end by that while its holder lives. So the time of a lease
is that of the machine since it was started, which its processes share; only what an earlier start
of the machine left, or another machine, is judged by the wall clock.
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

# A start mark outlives the session that nobody renewed, and no other: who ends in order, ended
# its runs.
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
    """Which start of the machine this is; empty where it is unknown."""
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
        """Now, or so many seconds later."""
        return cls(clock.now() + ahead, clock.monotonic() + ahead)


def begin(
    connection: sqlite3.Connection,
    settings: SubscriptionSettings,
    client: str,
    now: Moment,
    until: Moment,
) -> Session:
    """Joins the group, which is made if need be; a broadcast group is the session's own.
    What dead processes left is freed first."""
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
    """Whether the session was still there."""
    query = "UPDATE protoflow_sessions SET expires = ?, deadline = ? WHERE id = ?"
    return connection.execute(query, (until.wall, until.running, session)).rowcount == 1


def end(connection: sqlite3.Connection, session: int, now: float, *, expired: bool = False) -> None:
    """Frees what a session holds; its broadcast group goes with it."""
    lanes = connection.execute(_LANES, (session,)).fetchall()
    connection.execute(_FREE, (session, expired))
    for group, lane in lanes:
        order_lanes(connection, group, (lane,), now)
    connection.execute("DELETE FROM protoflow_sessions WHERE id = ?", (session,))
    query = "SELECT id FROM protoflow_groups WHERE session = ?"
    for (group,) in connection.execute(query, (session,)).fetchall():
        remove_group(connection, group)


def end_expired(connection: sqlite3.Connection, now: Moment) -> int:
    """Ends the sessions that nobody renewed. How many."""
    expired = connection.execute(_EXPIRED, (BOOT, now.running, now.wall)).fetchall()
    for (session,) in expired:
        end(connection, session, now.wall, expired=True)
    return len(expired)

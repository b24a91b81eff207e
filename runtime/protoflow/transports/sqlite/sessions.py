"""Sessions: who holds what, and until when if nothing more is heard of them.

One row for each subscription, renewed by its sweeper. When it ends, or nobody renewed it
in time, everything it holds is free at once.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from protoflow.transport import SubscriptionSettings
from protoflow.transports.sqlite.schema import BLOCKED
from protoflow.transports.sqlite.topics import Group, make_group, remove_group

_FREE = """
UPDATE protoflow_deliveries SET token = 0, due = 0,
  until = CASE WHEN EXISTS (SELECT 1 FROM protoflow_deliveries e
    WHERE e.group_id = protoflow_deliveries.group_id AND e.lane = protoflow_deliveries.lane
    AND e.sequence < protoflow_deliveries.sequence AND e.token = 0 AND e.until > ?3)
  THEN ?2 ELSE 0 END
WHERE token = ?1
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A member of a group."""

    id: int
    group: Group


def begin(
    connection: sqlite3.Connection,
    settings: SubscriptionSettings,
    client: str,
    now: float,
    expires: float,
) -> Session:
    """Joins the group, which is made if need be; a broadcast group is the session's own.
    What dead processes left is freed first."""
    end_expired(connection, now)
    name = settings.group
    id = connection.execute(
        "INSERT INTO protoflow_sessions (group_id, client, expires) VALUES (0, ?, ?)",
        (client, expires),
    ).lastrowid
    assert id is not None  # noqa: S101  for the type checker
    if settings.broadcast:
        name = f"{name}#{id}"
    group = make_group(connection, settings, name)
    connection.execute("UPDATE protoflow_sessions SET group_id = ? WHERE id = ?", (group.id, id))
    if settings.broadcast:
        connection.execute("UPDATE protoflow_groups SET session = ? WHERE id = ?", (id, group.id))
    return Session(id, group)


def renew(connection: sqlite3.Connection, session: int, expires: float) -> bool:
    """Whether the session was still there."""
    query = "UPDATE protoflow_sessions SET expires = ? WHERE id = ?"
    return connection.execute(query, (expires, session)).rowcount == 1


def end(connection: sqlite3.Connection, session: int, now: float) -> None:
    """Frees what a session holds; its broadcast group goes with it."""
    connection.execute(_FREE, (session, BLOCKED, now))
    connection.execute("DELETE FROM protoflow_sessions WHERE id = ?", (session,))
    query = "SELECT id FROM protoflow_groups WHERE session = ?"
    for (group,) in connection.execute(query, (session,)).fetchall():
        remove_group(connection, group)


def end_expired(connection: sqlite3.Connection, now: float) -> int:
    """Ends the sessions that nobody renewed. How many."""
    query = "SELECT id FROM protoflow_sessions WHERE expires < ?"
    expired = connection.execute(query, (now,)).fetchall()
    for (session,) in expired:
        end(connection, session, now)
    return len(expired)

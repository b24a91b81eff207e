"""What a member could claim: for whoever asks why nothing is claimed."""

from __future__ import annotations

import sqlite3

from protoflow.contract.spec import Ordering
from protoflow.transports.sqlite.claiming import HELD_ELSEWHERE, LANE, MAX_CLAIM
from protoflow.transports.sqlite.topics import Group

_DUE = """
SELECT count(*) FROM (SELECT 1 FROM protoflow_deliveries d
  WHERE d.group_id = ?1 AND d.token = 0 AND d.until <= ?3 {} LIMIT ?4)
"""
_DUE_OF_LANES = _DUE.format(HELD_ELSEWHERE)
_DUE = _DUE.format("")
_BEYOND = """
SELECT count(*) FROM (SELECT 1 FROM protoflow_messages m
  WHERE m.sequence > (SELECT position FROM protoflow_groups WHERE id = ?1) AND m.sequence <= ?5
  AND coalesce(m.due, 0) <= ?3
  AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries d
    WHERE d.group_id = ?1 AND d.lane = {} AND d.token <> ?2)
  LIMIT ?4)
"""
_FREE_BEYOND = {ordering: _BEYOND.format(lane) for ordering, lane in LANE.items()}


def claimable(connection: sqlite3.Connection, group: Group, session: int, now: float) -> int:
    """How much a member could claim now; it is not counted to the end."""
    values = (group.id, session, now, MAX_CLAIM, group.last)
    due = _DUE if group.ordering is Ordering.NONE else _DUE_OF_LANES
    (free,) = connection.execute(due, values[:4]).fetchone()
    (beyond,) = connection.execute(_FREE_BEYOND[group.ordering], values).fetchone()
    return int(free + beyond)

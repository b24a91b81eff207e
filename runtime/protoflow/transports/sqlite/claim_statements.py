"""The statements of a claim.

A statement returns its result in one step, because each step releases the interpreter's lock. So
all rows are packed into one row, column by column (see `rows`).
"""

from __future__ import annotations

from protoflow.contract.spec import Ordering

STATE = """
SELECT g.position,
  (SELECT 1 FROM protoflow_sessions s WHERE s.id = ?2),
  (SELECT min(until) FROM protoflow_deliveries d WHERE d.group_id = ?1 AND d.token = 0)
FROM protoflow_groups g WHERE g.id = ?1
"""
FREE = """
SELECT group_concat(sequence), group_concat(CAST(size AS INTEGER)) FROM (
  SELECT d.sequence, m.size FROM protoflow_deliveries d
  JOIN protoflow_messages m ON m.sequence = d.sequence
  WHERE d.group_id = ?1 AND d.token = 0 AND d.until <= ?3 {}
  ORDER BY {} LIMIT ?4)
"""
HELD_ELSEWHERE = """
  AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries e WHERE e.group_id = ?1
    AND e.lane = d.lane AND e.token NOT IN (0, ?2))
"""
# The order is by sequence: within a lane no message overtakes another, even after a wait.
FREE_OF_LANES = FREE.format(HELD_ELSEWHERE, "d.sequence")
FREE = FREE.format("", "d.until, d.sequence")
TAKE_FREE = """
UPDATE protoflow_deliveries SET token = ?, deliveries = deliveries + 1
WHERE group_id = ? AND sequence IN (SELECT value FROM json_each(?))
"""
COUNTS = """
SELECT group_concat(CAST(deliveries AS INTEGER)), group_concat(CAST(failures AS INTEGER)),
  group_concat(CAST(first_failure AS REAL)), group_concat(CAST(mark AS INTEGER))
FROM (SELECT * FROM protoflow_deliveries WHERE group_id = ?
  AND sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence)
"""
FRESH = """
SELECT count(*), total(size), max(sequence), count(due) FROM (
  SELECT sequence, size, due FROM protoflow_messages
  WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?)
"""
LOOK = """
SELECT group_concat(sequence), group_concat(CAST(size AS INTEGER)),
  group_concat(CAST(coalesce(due, 0) AS REAL)),
  group_concat(coalesce(hex(key), '')), max(sequence) FROM (
  SELECT sequence, size, due, key FROM protoflow_messages
  WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?)
"""
TAKE = """
INSERT INTO protoflow_deliveries SELECT m.sequence, ?, ?, 0, 0, {}, 1, 0, 0, 0
FROM protoflow_messages m WHERE {}
"""
SET_ASIDE = """
INSERT INTO protoflow_deliveries SELECT m.sequence, ?, 0,
  json_extract(j.value, '$[1]'), json_extract(j.value, '$[2]'), {}, 0, 0, 0, 0
FROM json_each(?) j JOIN protoflow_messages m ON m.sequence = json_extract(j.value, '$[0]')
"""
LANE = {
    Ordering.NONE: "NULL",
    Ordering.PER_KEY: "nullif(m.key, x'')",
    Ordering.PER_PARTITION: "x''",
}
TAKE_RANGE = {
    ordering: TAKE.format(lane, "sequence > ? AND sequence <= ?") for ordering, lane in LANE.items()
}
TAKE_LISTED = {
    ordering: TAKE.format(lane, "sequence IN (SELECT value FROM json_each(?))")
    for ordering, lane in LANE.items()
}
HINDRANCE = """
SELECT EXISTS (SELECT 1 FROM protoflow_deliveries WHERE group_id = ?1 AND token = 0)
  OR EXISTS (SELECT 1 FROM protoflow_sessions WHERE group_id = ?1 AND id <> ?2)
"""
PARTITION_HELD = """
SELECT EXISTS (SELECT 1 FROM protoflow_deliveries
  WHERE group_id = ? AND lane = x'' AND token <> ?)
"""
NEXT_DUE = """
SELECT min(until) FROM protoflow_deliveries
WHERE group_id = ? AND token = 0 AND until > ? AND until < ?
"""
ADVANCE = "UPDATE protoflow_groups SET position = ? WHERE id = ?"
BLOCKED_KEYS = """
SELECT group_concat(hex(key)) FROM (
  SELECT DISTINCT key FROM (SELECT key FROM protoflow_messages
    WHERE sequence > ?3 AND sequence <= ?4 ORDER BY sequence LIMIT ?5) WHERE key <> x'')
WHERE EXISTS (SELECT 1 FROM protoflow_deliveries d
  WHERE d.group_id = ?1 AND d.lane = key AND d.token <> ?2)
"""
# The messages that a member could claim, counted up to a limit.
DUE = """
SELECT count(*) FROM (SELECT 1 FROM protoflow_deliveries d
  WHERE d.group_id = ?1 AND d.token = 0 AND d.until <= ?3 {} LIMIT ?4)
"""
DUE_OF_LANES = DUE.format(HELD_ELSEWHERE)
DUE = DUE.format("")
BEYOND = """
SELECT count(*) FROM (SELECT 1 FROM protoflow_messages m
  WHERE m.sequence > (SELECT position FROM protoflow_groups WHERE id = ?1) AND m.sequence <= ?5
  AND coalesce(m.due, 0) <= ?3
  AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries d
    WHERE d.group_id = ?1 AND d.lane = {} AND d.token <> ?2)
  LIMIT ?4)
"""
FREE_BEYOND = {ordering: BEYOND.format(lane) for ordering, lane in LANE.items()}

"""Ids of transactions in the tables: those of the server, plus a shift.

A dump keeps the transaction ids of its rows and positions. The server that restores it counts its
own ids. If these are lower, messages that are published after the restore would be before the
positions of the groups, and no group would read them. So the first use on another server sets a
shift that raises its ids above all ids of the dump.

A server is recognised by the system identifier of its cluster, which `initdb` generates. A standby
and a physical backup have the identifier and the ids of their primary. The identifier is read from
a file, so it is compared only if `pg_postmaster_start_time` has changed.
"""

from __future__ import annotations

import logging
from typing import Final

from protoflow.transports.postgresql.database import Database

_log = logging.getLogger("protoflow.transports.postgresql")

COLUMNS: Final = """
ALTER TABLE {s}.meta
  ADD shift int8 NOT NULL DEFAULT 0, ADD system int8, ADD started timestamptz;
UPDATE {s}.meta SET started = pg_postmaster_start_time(),
  system = (SELECT system_identifier FROM pg_control_system());
"""

FUNCTIONS: Final = """
CREATE OR REPLACE FUNCTION {s}.shifted(given pg_snapshot, shift int8) RETURNS pg_snapshot
LANGUAGE sql IMMUTABLE AS $$
  SELECT concat_ws(':', pg_snapshot_xmin(given)::text::int8 + shift,
    pg_snapshot_xmax(given)::text::int8 + shift,
    (SELECT coalesce(string_agg((ran::text::int8 + shift)::text, ',' ORDER BY ran), '')
      FROM pg_snapshot_xip(given) AS ran))::pg_snapshot
$$;

-- Raises the shift if an id in the tables is above those of this server; returns whether one was.
CREATE OR REPLACE FUNCTION {s}.shift_ids() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  highest int8;
BEGIN
  SELECT greatest(
    (SELECT l.xid::text::int8 + 1 FROM {s}.log l ORDER BY l.xid DESC LIMIT 1),
    (SELECT max(pg_snapshot_xmax(p.open)::text::int8)
      FROM (SELECT open FROM {s}.cursors UNION ALL SELECT open FROM {s}.progress) p))
    INTO highest;
  UPDATE {s}.meta SET shift = highest - pg_snapshot_xmin(pg_current_snapshot())::text::int8
    WHERE highest > shift + pg_snapshot_xmin(pg_current_snapshot())::text::int8;
  RETURN FOUND;
END $$;

-- Compares the server with that of the last use of the tables; returns whether ids were shifted.
CREATE OR REPLACE FUNCTION {s}.check_server() RETURNS bool LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  shifted bool := false;
  here int8;
BEGIN
  IF pg_is_in_recovery() OR current_setting('transaction_read_only')::bool
    OR (SELECT started = pg_postmaster_start_time() FROM {s}.meta) THEN
    RETURN false;
  END IF;
  SELECT system_identifier INTO here FROM pg_control_system();
  PERFORM 1 FROM {s}.meta WHERE system <> here FOR UPDATE;
  IF FOUND THEN
    shifted := {s}.shift_ids();
  END IF;
  UPDATE {s}.meta SET system = here, started = pg_postmaster_start_time();
  RETURN shifted;
END $$;
"""


async def check_server(database: Database) -> None:
    """Sets the shift if the tables come from another server. Raises TransportError."""
    ((shifted,),) = await database.fetch("SELECT {s}.check_server()")
    if shifted:
        _log.warning(
            "the tables were restored from a dump of another server; groups go on at their "
            "positions in the dump",
            extra={"schema": database.schema},
        )

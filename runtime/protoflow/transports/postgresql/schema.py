"""The tables and functions, with their version.

A topic is a log of rows in `buckets` by key. A group is a position in it, and rows for
exceptions only: claims, failures, waiting messages. `{s}` stands for the schema's name.
"""

from __future__ import annotations

from typing import Final

from protoflow.transports.postgresql import transaction_ids

VERSION: Final = 2
BUCKETS: Final = 64
SLOTS: Final = 8

#: What brings the tables from a version to the next: `{s}` is the schema's name.
MIGRATIONS: Final[dict[int, str]] = {
    1: transaction_ids.COLUMNS + "DROP FUNCTION {s}.adopt();",
}

_TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE {s}.meta (
  version int NOT NULL, buckets int NOT NULL, slot int NOT NULL,
  opened float8 NOT NULL DEFAULT extract(epoch FROM clock_timestamp()));
INSERT INTO {s}.meta VALUES ({version}, {buckets}, 0);

-- The ring: each slot is a partition of the log; a closed one is emptied when it is old.
CREATE TABLE {s}.slots (slot int PRIMARY KEY, closed float8);
INSERT INTO {s}.slots SELECT slot, NULL FROM generate_series(0, {slots} - 1) AS g(slot);

CREATE TABLE {s}.topics (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE NOT NULL,
  dead bool NOT NULL DEFAULT false);

CREATE SEQUENCE {s}.log_seq CACHE 1;
CREATE TABLE {s}.log (
  slot int NOT NULL, topic int NOT NULL, bucket int NOT NULL, seq int8 NOT NULL,
  xid xid8 NOT NULL, due float8 NOT NULL, key bytea, head text NOT NULL, payload bytea,
  at float8 NOT NULL
) PARTITION BY LIST (slot);
CREATE INDEX ON {s}.log (topic, bucket, seq);
CREATE INDEX ON {s}.log (xid, topic, bucket, seq);
{partitions}

CREATE TABLE {s}.groups (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic int NOT NULL REFERENCES {s}.topics,
  name text NOT NULL, ordering int NOT NULL, broadcast bool NOT NULL, UNIQUE (topic, name));
CREATE TABLE {s}.members (
  id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, group_id int NOT NULL, client text NOT NULL,
  until float8 NOT NULL);

-- Groups without an order: one position for all buckets, moved by whoever claims.
CREATE TABLE {s}.cursors (
  group_id int PRIMARY KEY, base pg_snapshot NOT NULL, open pg_snapshot NOT NULL,
  low int8 NOT NULL, high int8 NOT NULL, upto int8 NOT NULL, seqs int8[] NOT NULL);
CREATE TABLE {s}.claims (
  id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, group_id int NOT NULL, member int8,
  deliveries int NOT NULL, buckets int[] NOT NULL, seqs int8[] NOT NULL);
CREATE INDEX ON {s}.claims (group_id) WHERE member IS NULL;
CREATE INDEX ON {s}.claims (member);

-- Groups with an order: each bucket is owned by one member, which keeps the position.
CREATE TABLE {s}.owners (
  group_id int NOT NULL, bucket int NOT NULL, member int8, crashes int NOT NULL DEFAULT 0,
  PRIMARY KEY (group_id, bucket));
CREATE TABLE {s}.progress (
  group_id int NOT NULL, bucket int NOT NULL, base pg_snapshot NOT NULL,
  open pg_snapshot NOT NULL, low int8 NOT NULL, high int8 NOT NULL, upto int8 NOT NULL,
  seq int8 NOT NULL, done int8[] NOT NULL, PRIMARY KEY (group_id, bucket)
) WITH (fillfactor = 50);

-- What is known of single messages of the log: failed runs and start marks.
CREATE TABLE {s}.failures (
  group_id int NOT NULL, seq int8 NOT NULL, bucket int NOT NULL, failures int NOT NULL DEFAULT 0,
  first_failure float8 NOT NULL DEFAULT 0, due float8 NOT NULL DEFAULT 0,
  marks int NOT NULL DEFAULT 0, PRIMARY KEY (group_id, seq));

-- Copies that wait for one group: retries, delayed messages, replays (which have no `seq`).
CREATE TABLE {s}.waiting (
  id int8 PRIMARY KEY DEFAULT nextval('{s}.log_seq'), group_id int NOT NULL, topic int NOT NULL,
  bucket int NOT NULL, seq int8, due float8 NOT NULL, member int8,
  deliveries int NOT NULL DEFAULT 0, failures int NOT NULL DEFAULT 0,
  first_failure float8 NOT NULL DEFAULT 0, marks int NOT NULL DEFAULT 0,
  key bytea, head text NOT NULL, payload bytea, at float8 NOT NULL);
CREATE INDEX ON {s}.waiting (group_id, due) WHERE member IS NULL;
CREATE INDEX ON {s}.waiting (member);

CREATE TABLE {s}.dead_letters (
  id int8 PRIMARY KEY DEFAULT nextval('{s}.log_seq'), topic int NOT NULL, message bytea NOT NULL,
  key bytea, head text NOT NULL, payload bytea, at float8 NOT NULL);
CREATE INDEX ON {s}.dead_letters (topic, id);
CREATE INDEX ON {s}.dead_letters (topic, message);
"""

# The transaction's id is assigned before the sequence is read: see `positions`.
_FUNCTIONS: Final = """
CREATE OR REPLACE FUNCTION {s}.now() RETURNS float8 LANGUAGE sql VOLATILE AS
$$ SELECT extract(epoch FROM clock_timestamp())::float8 $$;

CREATE OR REPLACE FUNCTION {s}.publish(
  given_topics int[], given_buckets int[], given_ids bytea[], given_keys bytea[],
  given_heads text[], given_payloads bytea[], given_delays float8[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  own xid8 := pg_catalog.pg_current_xact_id();
  now float8 := {s}.now();
  current int;
  shift_by int8;
  known bool;
BEGIN
  SELECT slot, shift, started = pg_postmaster_start_time()
      OR system = (SELECT system_identifier FROM pg_control_system())
    INTO current, shift_by, known FROM {s}.meta;
  IF NOT known THEN
    PERFORM {s}.check_server();
    SELECT shift INTO shift_by FROM {s}.meta;
  END IF;
  IF shift_by <> 0 THEN
    own := (own::text::int8 + shift_by)::text::xid8;
  END IF;
  INSERT INTO {s}.log (slot, topic, bucket, seq, xid, due, key, head, payload, at)
    SELECT current, t, b, nextval('{s}.log_seq'), own, CASE WHEN d > 0 THEN now + d ELSE 0 END,
      k, h, p, now
    FROM unnest(given_topics, given_buckets, given_keys, given_heads, given_payloads,
      given_delays) AS u(t, b, k, h, p, d);
  IF EXISTS (SELECT 1 FROM {s}.topics WHERE id = ANY (given_topics) AND dead) THEN
    INSERT INTO {s}.dead_letters (topic, message, key, head, payload, at)
      SELECT t, i, k, h, p, now
      FROM unnest(given_topics, given_ids, given_keys, given_heads, given_payloads)
        AS u(t, i, k, h, p)
      WHERE t IN (SELECT id FROM {s}.topics WHERE dead);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION {s}.topic_id(wanted text) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found int;
BEGIN
  SELECT id INTO found FROM {s}.topics WHERE name = wanted;
  IF found IS NULL THEN
    INSERT INTO {s}.topics (name) VALUES (wanted) ON CONFLICT (name) DO NOTHING;
    SELECT id INTO found FROM {s}.topics WHERE name = wanted;
  END IF;
  RETURN found;
END $$;

CREATE OR REPLACE FUNCTION {s}.read_log(
  wanted int, buckets int[], bases pg_snapshot[], opens pg_snapshot[], lows int8[],
  highs int8[], seqs int8[], most int)
RETURNS TABLE (bucket int, seq int8, due float8, key bytea, head text, payload bytea, at float8)
LANGUAGE plpgsql STABLE
SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  -- The partitions that may hold rows: the others are not looked at.
  used int[] := ARRAY(SELECT slot FROM {s}.meta UNION SELECT slot FROM {s}.slots
    WHERE closed IS NOT NULL);
BEGIN
  RETURN QUERY
  SELECT b.bucket, r.seq, r.due, r.key, r.head, r.payload, r.at
  FROM unnest(buckets, bases, opens, lows, highs, seqs) AS b(bucket, base, open, low, high, seq),
  LATERAL (
    (SELECT l.seq, l.due, l.key, l.head, l.payload, l.at FROM {s}.log l
      WHERE l.slot IN ({used}) AND l.topic = wanted AND l.bucket = b.bucket
        AND l.seq > greatest(b.low, b.seq) AND l.seq <= b.high
        AND l.xid >= pg_snapshot_xmax(b.base) AND pg_visible_in_snapshot(l.xid, b.open)
      ORDER BY l.seq LIMIT most)
    UNION ALL
    (SELECT l.seq, l.due, l.key, l.head, l.payload, l.at
      FROM pg_snapshot_xip(b.base) AS ran(xid) CROSS JOIN LATERAL
        (SELECT * FROM {s}.log l
          WHERE l.slot IN ({used})
            AND (l.xid, l.topic, l.bucket, l.seq) > (ran.xid, wanted, b.bucket, b.seq)
            AND (l.xid, l.topic, l.bucket) <= (ran.xid, wanted, b.bucket) OFFSET 0) l
      WHERE pg_visible_in_snapshot(l.xid, b.open)
      ORDER BY l.seq LIMIT most)
    ORDER BY seq LIMIT most
  ) r
  ORDER BY b.bucket, r.seq;
END $$;
"""

# Whether a group has something to do in a slot: unread, unfinished, or claimed.
_RETENTION: Final = """
CREATE OR REPLACE FUNCTION {s}.is_needed(slot int) RETURNS bool LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found bool;
BEGIN
  EXECUTE replace($sql$
    WITH position AS (
      SELECT g.topic, p.bucket, p.base, p.open, p.low, p.seq FROM {s}.progress p
        JOIN {s}.groups g ON g.id = p.group_id
      UNION ALL
      SELECT g.topic, b - 1, c.base, c.open, c.low, c.seqs[b] FROM {s}.cursors c
        JOIN {s}.groups g ON g.id = c.group_id, generate_series(1, {buckets}) AS s(b))
    SELECT EXISTS (SELECT 1 FROM position p, LATERAL (
        (SELECT l.seq, l.xid FROM {s}.log_SLOT l WHERE l.topic = p.topic AND l.bucket = p.bucket
          AND l.seq > p.low AND l.xid >= pg_snapshot_xmax(p.base)
          AND NOT (l.seq <= p.seq AND pg_visible_in_snapshot(l.xid, p.open)) LIMIT 1)
        UNION ALL
        (SELECT l.seq, l.xid FROM pg_snapshot_xip(p.base) AS ran(xid)
          JOIN {s}.log_SLOT l ON l.xid = ran.xid AND l.topic = p.topic AND l.bucket = p.bucket
          WHERE NOT (l.seq <= p.seq AND pg_visible_in_snapshot(l.xid, p.open)) LIMIT 1)
      ) AS unread)
    OR EXISTS (SELECT 1 FROM {s}.claims c JOIN {s}.groups g ON g.id = c.group_id
      CROSS JOIN LATERAL unnest(c.buckets, c.seqs) AS u(bucket, seq)
      JOIN {s}.log_SLOT l ON l.topic = g.topic AND l.bucket = u.bucket AND l.seq = u.seq)
  $sql$, 'SLOT', slot::text) INTO found;
  RETURN found;
END $$;

CREATE OR REPLACE FUNCTION {s}.rotate(keep float8) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '50ms' AS $$
DECLARE
  now float8 := {s}.now();
  current int;
  since float8;
  old int;
  following int;
  done text := '';
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtext('protoflow {s} rotate')) THEN
    RETURN '';
  END IF;
  SELECT slot, opened INTO current, since FROM {s}.meta;
  FOR old IN SELECT slot FROM {s}.slots WHERE closed <= now - keep ORDER BY closed LOOP
    CONTINUE WHEN {s}.is_needed(old);
    BEGIN
      -- With the lock nobody has uncommitted rows in it; meanwhile some may have been committed.
      EXECUTE format('LOCK TABLE {s}.log_%s IN ACCESS EXCLUSIVE MODE', old);
      IF NOT {s}.is_needed(old) THEN
        EXECUTE format('TRUNCATE {s}.log_%s', old);
        UPDATE {s}.slots SET closed = NULL WHERE slot = old;
        done := 'emptied';
      END IF;
    EXCEPTION WHEN lock_not_available THEN
      done := 'locked';
    END;
  END LOOP;
  following := (current + 1) % {slots};
  IF now - since >= keep / ({slots} - 2) THEN
    IF (SELECT closed IS NOT NULL FROM {s}.slots WHERE slot = following) THEN
      RETURN 'full';
    END IF;
    UPDATE {s}.meta SET slot = following, opened = now;
    UPDATE {s}.slots SET closed = now WHERE slot = current;
    done := done || ' turned';
  END IF;
  RETURN done;
END $$;
"""


def statements(schema: str) -> str:
    """Returns what creates everything in an empty schema."""
    partitions = "\n".join(
        f"CREATE TABLE {schema}.log_{slot} PARTITION OF {schema}.log FOR VALUES IN ({slot});"
        for slot in range(SLOTS)
    )
    tables = _TABLES.replace("{partitions}", partitions) + transaction_ids.COLUMNS
    return _with_names(tables, schema) + functions(schema)


def functions(schema: str) -> str:
    """Returns what creates the functions, or replaces those of another version."""
    return _with_names(transaction_ids.FUNCTIONS + _FUNCTIONS + _RETENTION, schema)


def _with_names(text: str, schema: str) -> str:
    return (
        text.replace("{used}", ", ".join(f"used[{number}]" for number in range(1, SLOTS + 1)))
        .replace("{version}", str(VERSION))
        .replace("{buckets}", str(BUCKETS))
        .replace("{slots}", str(SLOTS))
        .replace("{s}", schema)
    )

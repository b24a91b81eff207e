"""SQLite itself as the subject: what a queue of rows costs without a library around it.

`... normal|full COUNT`. Inserts 100 rows in a transaction, claims 100 and deletes them in
another, with the statements prepared and in one thread: the floor of any queue on SQLite.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.subjects.prefill import proto_body

WINDOW = 100


def main(level: str, count: int) -> None:
    """Measures; prints the result."""
    with tempfile.TemporaryDirectory() as directory:
        database = sqlite3.connect(Path(directory) / "rows.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA synchronous={level}")
        database.execute("CREATE TABLE q (id INTEGER PRIMARY KEY, state INTEGER, body BLOB)")
        database.execute("CREATE INDEX ready ON q (id) WHERE state = 0")
        body = proto_body(1)
        rows = [(body,)] * WINDOW
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count // WINDOW):
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO q (state, body) VALUES (0, ?)", rows)
            database.execute("COMMIT")
            database.execute("BEGIN IMMEDIATE")
            claimed = database.execute(
                "UPDATE q SET state = 1 WHERE id IN"
                " (SELECT id FROM q WHERE state = 0 ORDER BY id LIMIT ?) RETURNING id",
                (WINDOW,),
            ).fetchall()
            database.executemany("DELETE FROM q WHERE id = ?", claimed)
            database.execute("COMMIT")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"cpu_us": cpu / count * 1e6, "per_second": count / wall}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

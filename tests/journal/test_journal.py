"""The journal's file: what is written is read, bounded, and never in the way of the service."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.journal import Event, Journal, JournalError, JournalReader, MessageEvent
from protoflow.journal.entries import MINUTE_COLUMNS
from protoflow.journal.sampling import Sampling
from protoflow.journal.writer import EVENT, RETENTION, JournalWriter
from protoflow.stats.handlers import HandlerStats

DEAD = "orders..billing..dead"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def event(time: float, id: str = "a", text: str = "") -> tuple[int, tuple[object, ...]]:
    return EVENT, (time, id, "failed", "Bill", "orders", "billing", 1, "", text, "", "")


def test_what_happened_is_read_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    with Journal(path) as journal:
        journal.record_event(
            Event.FAILED, "a", handler="Bill", topic="orders", group="billing", attempt=1,
            error="ValueError: no sum", detail="again in 0.1 s",
        )  # fmt: skip
        journal.record_event(Event.DEAD_LETTERED, "a", handler="Bill", topic=DEAD)
        journal.record_event(Event.FAILED, "b", handler="Bill")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with JournalReader(path) as reader:
        failed, dead = reader.timeline("a")
        assert (failed.event, failed.error, failed.attempt) == ("failed", "ValueError: no sum", 1)
        assert (failed.group, failed.detail) == ("billing", "again in 0.1 s")
        assert (dead.event, dead.topic) == (Event.DEAD_LETTERED, DEAD)
        assert reader.timeline("c") == []
        assert reader.since == failed.time
        assert reader.lost == 0


def test_what_operators_did_is_kept_apart_and_with_the_messages(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    with Journal(path, actor="ann@host") as journal:
        journal.record_action("pause", "shop.v1.Orders.BillOrder")
        journal.record_action("replay", DEAD, ids=["a", "b"], detail="to elsewhere")
        journal.record_action("purge", DEAD, count=7)
    with JournalReader(path) as reader:
        purge, replay, pause = reader.actions()
        assert (purge.action, purge.count, purge.actor) == ("purge", 7, "ann@host")
        assert (replay.target, replay.count, replay.detail) == (DEAD, 2, "to elsewhere")
        assert (pause.action, pause.count) == ("pause", 0)
        (replayed,) = reader.timeline("b")
        assert (replayed.event, replayed.topic) == (Event.REPLAYED, DEAD)
        assert replayed.detail == "by ann@host to elsewhere"
        assert reader.actions(until=purge.time)[0].action != "purge"


def test_several_processes_add_to_one_minute(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    now = [120.0]
    counters = [{"Bill": HandlerStats()}, {"Bill": HandlerStats()}]
    journals = [Journal(path, now=lambda: now[0]) for _ in counters]
    samplings = [
        Sampling(journal, stats, lambda: now[0])
        for journal, stats in zip(journals, counters, strict=True)
    ]
    for journal, stats, sampling in zip(journals, counters, samplings, strict=True):
        journal.open()
        stats["Bill"].handled += 2
        stats["Bill"].timings.ran(0.0, 0.25)
        now[0] = 170.0
        sampling.sample()
        sampling.sample()  # nothing has moved
        now[0] = 180.0
        stats["Bill"].handled += 5
        sampling.sample()  # still of the minute that it was counted in
        stats["Bill"].failed_runs += 1
        sampling.sample()
        now[0] = 120.0
    for journal in journals:
        journal.close()
    with JournalReader(path) as reader:
        first, second = reader.minutes()
        assert (first.minute, first.handler, first.counts["handled"]) == (120, "Bill", 14)
        assert (first.runs, first.seconds) == (2, 0.5)
        assert (second.minute, second.counts["failed_runs"]) == (180, 2)
        assert reader.minutes(since=180) == [second]
        assert reader.minutes(handler="Mail") == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9)),
        max_size=30,
    )
)
def test_minutes_add_up_to_what_was_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int, int]]
) -> None:
    path = str(tmp_path_factory.mktemp("journal") / "journal.db")
    now = [0.0]
    stats = {"a": HandlerStats(), "b": HandlerStats()}
    journal = Journal(path, now=lambda: now[0])
    sampling = Sampling(journal, stats, lambda: now[0])
    for wait, name, handled, failed in steps:
        now[0] += wait * 10
        sampling.sample()
        stats[name].handled += handled
        stats[name].failed_runs += failed
    sampling.sample()
    with journal:
        pass
    if not any(handled or failed for _, _, handled, failed in steps):
        return
    with JournalReader(path) as reader:
        for name, counted in stats.items():
            minutes = reader.minutes(handler=name)
            assert sum(one.counts["handled"] for one in minutes) == counted.handled
            assert sum(one.counts["failed_runs"] for one in minutes) == counted.failed_runs
            assert all(0 <= one.minute <= now[0] and not one.minute % 60 for one in minutes)


def test_entries_go_after_a_day(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    writer = JournalWriter(path, 1 << 20)
    minute = (1, (60, "Bill", *(1 for _ in MINUTE_COLUMNS)))
    action = (2, (100.0, "pause", "Bill", 0, "", ""))
    writer.write([event(100.0, "old"), event(200.0, "new"), minute, action], 200.0)
    writer.write([], 150.0 + RETENTION)
    with JournalReader(path) as reader:
        assert reader.timeline("old") == []
        assert len(reader.timeline("new")) == 1
        assert reader.minutes() == []
        assert reader.actions() == []
    writer.write([], 300.0 + RETENTION)
    with JournalReader(path) as reader:
        assert reader.since is None
    writer.close()


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=30, max_size=60), st.integers(0, 1000))
def test_the_file_keeps_to_its_size_and_to_the_youngest(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], length: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    limit = 1 << 20
    writer = JournalWriter(str(path), limit)
    count = 0
    for size in batches:
        writer.write(
            [event(float(count + n), str(count + n), "x" * length) for n in range(size)], 0
        )
        count += size
        assert path.stat().st_size <= limit
    with JournalReader(str(path)) as reader:
        assert len(reader.timeline(str(count - 1))) == 1
        kept = [n for n in range(count) if reader.timeline(str(n))]
        assert kept == list(range(count))[-len(kept) :]
    writer.close()


@pytest.mark.parametrize(
    ("id", "found"), [("\ud800", "?"), ("x" * 5000, "x" * 5000), ("ä\0b", "ä\0b")]
)
def test_no_message_breaks_the_journal(tmp_path: Path, id: str, found: str) -> None:
    path = str(tmp_path / "journal.db")
    with Journal(path) as journal:
        journal.record_event(Event.FAILED, id, error="\udfff" + "x" * 100_000)
    assert journal.lost == 0
    with JournalReader(path) as reader:
        (failed,) = reader.timeline(found)
        assert len(failed.error) == 1024


@pytest.mark.parametrize("kind", ["folder", "no folder", "other tables", "no database", "link"])
def test_a_file_that_is_no_journal_is_reported_once_and_counted(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "no folder":
        path = tmp_path / "nowhere" / "journal.db"
    elif kind == "other tables":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE orders (id)")
        connection.close()
    elif kind == "no database":
        path.write_bytes(b"no database " * 1000)
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        journal = Journal(str(path))
        journal.open()
        journal.record_event(Event.FAILED, "a")
        until(lambda: journal.problem is not None)
        journal.record_event(Event.FAILED, "b")
        journal.close()
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if "cannot be written" in text]) == 1, texts
    assert journal.lost == 2
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(JournalError):
        JournalReader(str(path))


def test_who_records_nothing_makes_no_file(tmp_path: Path) -> None:
    with Journal(str(tmp_path / "journal.db")):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_gap_stands_in_the_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    journal = Journal(path)
    for _ in range(20_005):  # nobody writes yet
        journal.record_event(Event.FAILED, "a")
    assert journal.lost == 5
    with journal:
        pass
    with JournalReader(path) as reader:
        assert reader.lost == 5
        assert reader.actions() == []
        assert len(reader.timeline("a", limit=30_000)) == 20_000


def test_a_file_that_is_deleted_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(str(path)) as journal:
        journal.record_event(Event.FAILED, "a")
        until(lambda: path.exists() and bool(_timeline(path, "a")))
        for file in tmp_path.iterdir():
            file.unlink()
        journal.record_event(Event.FAILED, "b")
    assert [one.id for one in _timeline(path, "b")] == ["b"]


def _timeline(path: Path, id: str) -> list[MessageEvent]:
    try:
        with JournalReader(str(path)) as reader:
            return list(reader.timeline(id))
    except JournalError:
        return []  # not made yet


def test_a_locked_file_loses_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    writer = JournalWriter(path, 1 << 20)
    writer.write([event(time.time())], time.time())
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    journal = Journal(path)
    journal.open()
    journal.record_event(Event.FAILED, "b")
    until(lambda: journal.problem is not None)
    locked.execute("COMMIT")
    locked.close()
    journal.close()
    writer.close()
    assert journal.lost == 0
    with JournalReader(path) as reader:
        assert len(reader.timeline("b")) == 1


def test_recording_from_threads_loses_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    with Journal(path) as journal:

        def record() -> None:
            for _ in range(1000):
                journal.record_event(Event.FAILED, "a")

        threads = [threading.Thread(target=record) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with JournalReader(path) as reader:
        assert len(reader.timeline("a", limit=5000)) == 4000

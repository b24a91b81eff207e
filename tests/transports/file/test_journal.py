"""The journal of a group: torn tails are cut off, damage is reported, and it stays short."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from protoflow.errors import TopologyError, TransportError
from protoflow.transports.file import disk
from protoflow.transports.file import journal as journals
from protoflow.transports.file.group_state import GroupState
from protoflow.transports.file.journal import JOURNAL, Journal

_folders = itertools.count()


def made(tmp_path: Path, data: bytes | None = None) -> Journal:
    folder = tmp_path / f"group{next(_folders)}"
    folder.mkdir()
    if data is None:
        Journal.create(str(folder), 0, 0)
    else:
        (folder / JOURNAL).write_bytes(data)
    return Journal(str(folder))


def work(journal: Journal, count: int = 3) -> list[list[object]]:
    """Reads, claims, settles; the snapshots after each step."""
    snapshots = []
    for number in range(count):
        with journal.alone() as state:
            state.change("alive", "me", 1e9)
            state.change("read", number + 1, number + 1, 0.0, [(number, 7, 0.0)])
            state.claim("me", number)
        snapshots.append(current(journal))
    with journal.alone() as state:
        state.change("back", 0, 5.5, 1, 2, 3.5)
        state.change("ack", [1])
        state.change("mark", 2, 1)
    snapshots.append(current(journal))
    return snapshots


def current(journal: Journal) -> list[object]:
    with journal.alone() as state:
        return state.snapshot()


def test_another_process_sees_the_same_state(tmp_path: Path) -> None:
    journal = made(tmp_path)
    other = Journal(journal.path)
    for snapshot in work(journal):
        assert snapshot
    assert current(other) == current(journal)
    assert other.read().snapshot() == current(journal)
    with other.alone() as state:
        state.change("gone", "me")
    assert journal.changed()
    with journal.alone() as state:
        assert not any(each.claim for each in state.entries.values())


def test_a_journal_that_is_cut_at_any_byte_is_an_earlier_state(tmp_path: Path) -> None:
    journal = made(tmp_path)
    snapshots = [GroupState().snapshot(), *work(journal)]
    data = (Path(journal.path) / JOURNAL).read_bytes()
    seen = []
    first = len((Path(made(tmp_path).path) / JOURNAL).read_bytes())
    for cut in range(first, len(data)):
        torn = made(tmp_path, data[:cut])
        snapshot = current(torn)
        assert snapshot in snapshots
        seen.append(snapshots.index(snapshot))
        with torn.alone() as state:
            state.change("alive", "other", 1.0)
        assert current(Journal(torn.path)) == current(torn)
        torn.close()
    assert seen == sorted(seen)


def test_damage_within_a_journal_is_reported_and_nothing_is_cut_off(tmp_path: Path) -> None:
    journal = made(tmp_path)
    work(journal)
    data = bytearray((Path(journal.path) / JOURNAL).read_bytes())
    for index in range(0, len(data) - 200, 37):
        hit = bytearray(data)
        hit[index] ^= 4
        damaged = made(tmp_path, bytes(hit))
        with pytest.raises(TransportError, match="is damaged at byte"), damaged.alone():
            pass
        assert (Path(damaged.path) / JOURNAL).read_bytes() == hit


def test_a_long_journal_is_replaced_by_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_LONG", 2000)
    journal = made(tmp_path)
    other = Journal(journal.path)
    for number in range(300):
        chosen = (journal, other)[number % 2]
        with chosen.alone() as state:
            state.change("read", number + 1, number + 1, 0.0, [(number, 0, 0.0)])
            state.claim("me", number)
            state.change("ack", [number])
    assert (Path(journal.path) / JOURNAL).stat().st_size < 4000
    assert current(journal) == current(other)
    assert current(journal)[2] == [300, 300, 0.0]


def test_a_change_is_kept_even_if_the_journal_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a member would hold claims that it knows nothing of."""
    journal = made(tmp_path)
    work(journal)
    monkeypatch.setattr(journals, "_LONG", 1)
    monkeypatch.setattr(journals, "_MUCH", 0)
    for name in ("replace_file", "open_file"):
        with monkeypatch.context() as patch:
            patch.setattr(journals, name, failing)
            with journal.alone() as state:
                state.change("alive", name, 1.0)
        assert current(journal) == current(Journal(journal.path))
        with journal.alone() as state:
            assert name in state.members


def failing(*_: object) -> None:
    raise OSError("too many open files")


def test_a_change_that_cannot_be_written_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = made(tmp_path)
    work(journal)
    before = current(journal)

    def full(descriptor: int, data: bytes) -> None:
        write_half(descriptor, data[: len(data) // 2])
        raise OSError("the disk is full")

    write_half = disk.write_all
    monkeypatch.setattr(journals, "write_all", full)
    with pytest.raises(OSError, match="full"), journal.alone() as state:
        state.change("ack", [0])
    monkeypatch.undo()
    assert current(journal) == current(Journal(journal.path)) == before


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    state = GroupState()
    snapshot = state.snapshot()
    snapshot[1] = 99
    with pytest.raises(TransportError, match="of version 99"):
        state.replay([snapshot])
    with pytest.raises(TransportError, match="another version"):
        state.replay([["unheard-of", 1]])


def test_a_group_without_journal_is_reported(tmp_path: Path) -> None:
    journal = made(tmp_path)
    (Path(journal.path) / JOURNAL).unlink()
    with pytest.raises(TopologyError, match="has no journal"), journal.alone():
        pass

"""Watermark and note, without a broker."""

from __future__ import annotations

import re

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from protoflow.transports.kafka.commit_metadata import (
    MAX_LENGTH,
    CommitMetadata,
    UnknownMetadataError,
)
from protoflow.transports.kafka.partition import Partition

TP = TopicPartition("orders", 0)


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Offsets as they are read, with the gaps of compaction, and some of them finished."""
    gaps = draw(st.lists(st.integers(1, 4), min_size=1, max_size=60))
    start = draw(st.integers(0, 1000))
    offsets = [start]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    finished = draw(st.lists(st.sampled_from(offsets), unique=True))
    return offsets, finished


@given(lives())
def test_only_the_contiguous_prefix_is_below_the_watermark(
    life: tuple[list[int], list[int]],
) -> None:
    offsets, order = life
    partition = Partition(TP, 0, offsets[0])
    for offset in offsets:
        assert partition.admit(offset)
    done: set[int] = set()
    for offset in order:
        assert partition.finish(offset)
        done.add(offset)
        unfinished = [item for item in offsets if item not in done]
        assert partition.watermark == (unfinished[0] if unfinished else offsets[-1] + 1)
        assert not partition.finish(offset), "done twice is done once"


@given(lives(), st.integers(0, 20))
def test_a_restart_redoes_exactly_what_was_not_finished(
    life: tuple[list[int], list[int]], read_again: int
) -> None:
    offsets, order = life
    first = Partition(TP, 0, offsets[0])
    for offset in offsets:
        first.admit(offset)
    for offset in order:
        first.finish(offset)
    # A life that ends early must not forget what the one before it had finished.
    for life_span in (read_again, len(offsets)):
        place = first.watermark
        text = first.metadata("w", clean=True).encode(place)
        second = Partition(TP, 0, place, CommitMetadata.decode(text, place))
        again = [offset for offset in offsets if offset >= place][:life_span]
        redone = [offset for offset in again if second.admit(offset)]
        assert redone == [offset for offset in again if offset not in set(order)]
        assert second.watermark <= min(
            (offset for offset in offsets if offset not in set(order)), default=place + 10**9
        )
        first = second


@given(
    st.integers(0, 2**62),
    st.sets(st.integers(1, 20_000), max_size=400),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_a_note_comes_back_as_far_as_it_reaches(
    offset: int, ahead: set[int], a: int, b: int
) -> None:
    finished = {offset + distance for distance in ahead}
    isolated = offset + b if b else 0
    marks = {offset + distance: a % 100 for distance in list(ahead)[:8]}
    metadata = CommitMetadata(
        writer="a1b2c3",
        starts=a,
        isolated_until=isolated,
        marks=marks,
        initial_partitions=b,
        topic="A" * 22,
        finished=finished,
    )
    text = metadata.encode(offset)
    assert len(text) <= MAX_LENGTH
    back = CommitMetadata.decode(text, offset)
    assert (back.writer, back.starts, back.isolated_until) == ("a1b2c3", a, isolated)
    assert (back.marks, back.initial_partitions, back.topic) == (marks, b, "A" * 22)
    assert set(back.finished) <= finished
    assert set(back.finished) >= {item for item in finished if item <= offset + 5000}


@given(st.text(max_size=60) | st.just(None) | st.from_regex(r"pf2(;[^;]*){7}", fullmatch=True))
def test_foreign_text_is_an_empty_note(text: str | None) -> None:
    try:
        metadata = CommitMetadata.decode(text, 7)
    except UnknownMetadataError:
        assert text is not None
        assert re.match(r"pf\d+(;|$)", text)
        return
    assert metadata.starts >= 0
    if text is None or not text.startswith("pf2;"):
        assert metadata == CommitMetadata()


@pytest.mark.parametrize("text", ["pf1;a1b2c3;1;0;-1;0;", "pf3;whatever"])
def test_a_note_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(UnknownMetadataError, match=text[:3]):
        CommitMetadata.decode(text, 7)


def note_after(
    starts: int, *, clean: bool, progress: bool = False, writer: str = "other"
) -> CommitMetadata:
    partition = Partition(TP, 0, 5, CommitMetadata(writer="first", starts=starts), writer=writer)
    partition.admit(5)
    if progress:
        partition.finish(5)
    return partition.metadata(writer, clean=clean)


def test_an_unclean_start_is_counted_until_the_watermark_moves() -> None:
    assert note_after(0, clean=False).starts == 1
    assert note_after(1, clean=False).starts == 2
    assert note_after(2, clean=True).starts == 2, "a clean end proves nothing about the start"
    assert note_after(2, clean=True, progress=True).starts == 0
    assert note_after(2, clean=False, progress=True).starts == 1


def test_a_failed_commit_of_this_process_is_unknown_and_not_unclean() -> None:
    assert note_after(1, clean=False, writer="first").starts == 1


def test_two_unclean_starts_are_suspicious() -> None:
    assert not Partition(TP, 0, 5, CommitMetadata(starts=1)).is_suspicious
    assert Partition(TP, 0, 5, CommitMetadata(starts=2)).is_suspicious


def test_a_mark_stays_until_its_message_is_finished() -> None:
    """Another suspect of the partition must not hide it."""
    partition = Partition(TP, 0, 5, CommitMetadata(marks={5: 1, 7: 1, 2: 9}))
    for offset in range(5, 9):
        partition.admit(offset)
    assert partition.marks == {5: 1, 7: 1}
    assert [partition.is_suspect(offset) for offset in range(5, 9)] == [True, False, True, False]
    partition.marks[6] = 1
    partition.finish(7)
    assert partition.metadata("w", clean=False).marks == {5: 1, 6: 1}
    assert partition.outlook({6}, "w")[1].marks == {5: 1}


def test_careful_ends_where_the_window_ends() -> None:
    partition = Partition(TP, 0, 5)
    partition.begin_isolation(2)
    for offset in range(5, 9):
        partition.admit(offset)
    assert [partition.is_suspect(offset) for offset in range(5, 9)] == [True, True, False, False]
    assert partition.metadata("w", clean=False).isolated_until == 7
    partition.finish(5)
    partition.finish(6)
    assert partition.metadata("w", clean=False).isolated_until == 0


def test_what_the_broker_says_is_done_is_done() -> None:
    partition = Partition(TP, 0, 5)
    for offset in range(5, 10):
        partition.admit(offset)
    partition.committed(6, {8})
    assert partition.watermark == 6
    assert partition.is_done(8)
    assert partition.unsettled == 3


def test_empty_offsets_at_the_end_are_passed() -> None:
    partition = Partition(TP, 0, 5)
    partition.admit(5)
    partition.advance(9)
    assert partition.watermark == 5, "not while something is unfinished"
    partition.finish(5)
    partition.advance(9)
    assert partition.watermark == 9

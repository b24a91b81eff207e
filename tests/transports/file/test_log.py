"""The log of a topic: whatever happens to its bytes, no record is lost or changed in silence."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protoflow.transports.file import frames, records
from protoflow.transports.file.log_reader import LogReader, LostPositionError

from tests.transports.file.logs import NOW, SALT, appender, ids, part, read, segments, write

COUNT = 4
ALL = [f"m{number}" for number in range(COUNT)]
_folders = itertools.count()
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def fresh(tmp_path: Path) -> Path:
    folder = tmp_path / str(next(_folders))
    folder.mkdir()
    return folder


def test_a_log_that_is_cut_at_any_byte_is_its_whole_records(tmp_path: Path) -> None:
    write(whole := fresh(tmp_path), COUNT)
    data = segments(whole)[0].read_bytes()
    ends = [each.end for each in read(whole)]
    for cut in range(len(data)):
        folder = fresh(tmp_path)
        (folder / segments(whole)[0].name).write_bytes(data[:cut])
        kept = sum(1 for end in ends if end <= cut)
        assert ids(read(folder)) == ALL[:kept]  # before an appender heals it
        write(folder, 1, first=9)
        records = read(folder)
        assert ids(records) == [*ALL[:kept], "m9"]
        assert [each.sequence for each in records] == [*range(1, kept + 2)]
        torn = b"".join(each.read_bytes() for each in folder.glob("*.torn"))
        assert torn == data[ends[kept - 1] if kept else 0 : cut]


@given(bit=st.integers(min_value=0), then=st.booleans())
@quick
def test_a_flipped_bit_is_reported_and_costs_its_record_only(
    tmp_path: Path, bit: int, then: bool
) -> None:
    write(folder := fresh(tmp_path), COUNT)
    file = segments(folder)[0]
    data = bytearray(file.read_bytes())
    ends = [each.end for each in read(folder)]
    bit %= 8 * (ends[-2] if not then else ends[-1])
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    hit = next(index for index, end in enumerate(ends) if bit // 8 < end)
    expected = [*ALL[:hit], "!", *ALL[hit + 1 :]]
    if then:
        write(folder, 1, first=9)
        expected = [*ALL[:hit], *(["!"] if hit < COUNT - 1 else []), *ALL[hit + 1 :], "m9"]
    records = read(folder)
    assert ids(records) == expected
    for record in records:
        assert (record.damage is None) == (record.head is not None)


@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=12),
    segment_bytes=st.integers(1, 600),
    position=st.integers(0, 11),
)
@quick
def test_records_are_read_from_any_position_over_segments(
    tmp_path: Path, sizes: list[int], segment_bytes: int, position: int
) -> None:
    log = appender(folder := fresh(tmp_path), segment_bytes)
    for number, size in enumerate(sizes):
        log.append([part(number, size)], NOW + number)
    log.close()
    records = read(folder)
    assert [len(each.payload) for each in records] == sizes
    assert [each.sequence for each in records] == [*range(1, len(sizes) + 1)]
    reader = LogReader(str(folder), SALT)
    chosen = records[position % len(records)]
    assert reader.read(chosen.position, 1) == [chosen]
    assert reader.previous(chosen.end) == chosen
    assert reader.at_time(chosen.time) == chosen.position
    assert reader.at_time(chosen.time - 0.5) == chosen.position
    assert reader.at_time(NOW + 1000) == records[-1].end
    assert reader.count(chosen.end, chosen.sequence) == len(records) - chosen.sequence
    reader.close()


def test_bytes_missing_between_segments_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 6, segment_bytes=150)
    first, *_ = segments(tmp_path)
    records = read(tmp_path)
    first.write_bytes(first.read_bytes()[: records[0].end + 5])
    with caplog.at_level(logging.ERROR, "protoflow.transports.file"):
        assert ids(read(tmp_path)) == ["m0", "!", "m2", "m3", "m4", "m5"]
    assert "a part of a topic is damaged" in caplog.text


def test_a_frame_in_a_payload_is_never_taken_for_a_record(tmp_path: Path) -> None:
    """The salt of the topic is unknown to those who publish."""
    log = appender(tmp_path)
    forged = frames.pack(SALT + 1, 100, b"x" * 50)
    for number in range(3):
        log.append([part(number) + forged * 3], NOW)
    log.close()
    file = segments(tmp_path)[0]
    data = bytearray(file.read_bytes())
    data[0] ^= 1  # the head is gone, so the next frame is searched for
    file.write_bytes(data)
    assert ids(read(tmp_path)) == ["!", "m1", "m2"]


def test_a_copy_of_a_record_at_another_place_is_damage(tmp_path: Path) -> None:
    write(tmp_path, 2)
    file = segments(tmp_path)[0]
    first = file.read_bytes()[: read(tmp_path)[0].end]
    file.write_bytes(first + first + file.read_bytes()[len(first) :])
    assert ids(read(tmp_path))[0:2] == ["m0", "!"][: len(read(tmp_path))]
    assert "m1" not in ids(read(tmp_path))


def test_a_position_before_the_first_segment_is_lost(tmp_path: Path) -> None:
    write(tmp_path, 6, segment_bytes=150)
    segments(tmp_path)[0].unlink()
    reader = LogReader(str(tmp_path), SALT)
    with pytest.raises(LostPositionError, match="not kept any more"):
        reader.read(0)
    reader.close()


def test_appenders_take_turns(tmp_path: Path) -> None:
    one, other = appender(tmp_path, 300), appender(tmp_path, 300)
    for number in range(10):
        (one, other)[number % 2].append([part(number)], NOW - number)  # clocks differ
    records = read(tmp_path)
    assert ids(records) == [f"m{number}" for number in range(10)]
    assert [each.sequence for each in records] == [*range(1, 11)]
    assert {each.time for each in records} == {NOW}  # time never goes back
    one.close()
    other.close()


def test_after_a_crash_the_lost_tail_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 2)
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b"PFL1half a record")
    with caplog.at_level(logging.WARNING, "protoflow.transports.file"):
        write(tmp_path, 1, first=2)
    assert "the last record of a topic was incomplete" in caplog.text
    assert ids(read(tmp_path)) == ["m0", "m1", "m2"]


def foreign(**head: Any) -> bytes:
    return records.body(1, NOW, records.part(head))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"x" * 20,
        b"\0" * 16 + b"\2\0\0\0[]",
        b"\0" * 16 + b"\2\0\0\0{}",
        foreign(id="f", metadata={}, due="5"),
        foreign(id="f", metadata={}, due=float("nan")),
        foreign(id="f", metadata={}, due=10**400),
        foreign(removed=["1"]),
        foreign(removed_before="7"),
    ],
)
def test_a_record_of_another_program_is_damage_and_blocks_nothing(
    tmp_path: Path, body: bytes
) -> None:
    write(tmp_path, 1)
    end = read(tmp_path)[0].end
    with segments(tmp_path)[0].open("ab") as file:
        file.write(frames.pack(SALT, end, body))
        file.write(frames.pack(SALT, end + len(body) + frames.EXTRA, read_body(tmp_path)))
    assert ids(read(tmp_path)) == ["m0", "!", "m0"]


def test_a_time_is_found_although_the_first_record_of_a_segment_is_damaged(tmp_path: Path) -> None:
    write(tmp_path, 6, segment_bytes=1)
    damaged = segments(tmp_path)[3]
    data = bytearray(damaged.read_bytes())
    data[40] ^= 1
    damaged.write_bytes(data)
    reader = LogReader(str(tmp_path), SALT)
    starts = [each.position for each in read(tmp_path)]
    assert (
        [reader.at_time(NOW + number) for number in range(6)]
        == [
            *starts[:3],
            starts[4],  # the damaged one has no time
            *starts[4:],
        ]
    )
    reader.close()


def read_body(folder: Path) -> bytes:
    data = segments(folder)[0].read_bytes()
    body = frames.body_at(SALT, 0, data, 0)
    assert body is not None
    return body

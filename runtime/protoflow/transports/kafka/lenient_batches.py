"""Reads batches leniently: damage in one record does not affect the others."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka import codec as codecs
from aiokafka.record.util import decode_varint

#: Base offset, length, leader epoch, magic, crc, attributes, delta of the last offset, first and
#: largest timestamp, producer, its epoch, sequence, number of records.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH: Final = 12
_LOG_APPEND_TIME: Final = 0x08
_DECODERS: Final = {
    1: gzip.decompress,
    2: codecs.snappy_decode,
    3: codecs.lz4_decode,
    4: codecs.zstd_decode,
}


@dataclass(slots=True)
class Batch:
    """A batch in an answer to a fetch."""

    header: tuple[Any, ...]
    raw: memoryview

    @property
    def next_offset(self) -> int:
        """The offset after its last record."""
        return int(self.header[0]) + int(self.header[6]) + 1


def batch_at(raw: Any, offset: int) -> Batch | None:
    """Returns the batch that contains an offset; None if it has an older format."""
    view = memoryview(raw)
    place = 0
    while len(view) - place >= _HEADER.size:
        header = _HEADER.unpack_from(view, place)
        end = place + _BEFORE_LENGTH + header[1]
        if header[3] != 2 or end > len(view):
            return None
        batch = Batch(header, view[place + _HEADER.size : end])
        if batch.next_offset > offset:
            return batch
        place = end
    return None


def records_of(
    tp: TopicPartition, batch: Batch, start: int, failure: str
) -> Iterator[tuple[ConsumerRecord, str | None]]:
    """Yields the records from an offset on; for damaged records with the reason."""
    offset = max(start, batch.header[0])
    try:
        codec = batch.header[5] & 0x07
        raw = bytes(batch.raw)
        data = bytearray(_DECODERS[codec](raw) if codec else raw)
        place = 0
        for _ in range(batch.header[12]):
            record, reason, place = _record(tp, batch, data, place)
            if record.offset >= start:
                offset = record.offset + 1
                yield record, reason
    except Exception:  # whatever the error is, the readable records are kept
        if offset < batch.next_offset:
            yield _made(tp, offset, batch.header[8], None, None, ()), f"damaged: {failure}"


def _record(
    tp: TopicPartition, batch: Batch, buffer: bytearray, place: int
) -> tuple[ConsumerRecord, str | None, int]:
    """Returns the record at a place, its damage, and the place of the next one."""
    length, place = decode_varint(buffer, place)
    end = place + length
    time_delta, place = decode_varint(buffer, place + 1)  # after the attributes
    offset_delta, place = decode_varint(buffer, place)
    key, place = _bytes(buffer, place)
    value, place = _bytes(buffer, place)
    count, place = decode_varint(buffer, place)
    headers: list[tuple[str, bytes | None]] = []
    reason = None
    for _ in range(count):
        name, place = _bytes(buffer, place)
        content, place = _bytes(buffer, place)
        try:
            headers.append(((name or b"").decode(), content))
        except UnicodeDecodeError:
            reason = "the name of a header is not UTF-8"
            headers.append(((name or b"").decode(errors="backslashreplace"), content))
    if place != end:
        raise ValueError(place)
    appended = batch.header[5] & _LOG_APPEND_TIME
    time = batch.header[8] if appended else batch.header[7] + time_delta
    record = _made(tp, batch.header[0] + offset_delta, time, key, value, tuple(headers))
    return record, reason, end


def _bytes(buffer: bytearray, place: int) -> tuple[bytes | None, int]:
    size, place = decode_varint(buffer, place)
    if size < 0:
        return None, place
    if place + size > len(buffer):
        raise ValueError(size)
    return bytes(buffer[place : place + size]), place + size


def _made(
    tp: TopicPartition,
    offset: int,
    time: int,
    key: bytes | None,
    value: bytes | None,
    headers: Any,  # Any: aiokafka's types do not allow that values are missing
) -> ConsumerRecord:
    return ConsumerRecord(
        topic=tp.topic,
        partition=tp.partition,
        offset=offset,
        timestamp=time,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=-1 if key is None else len(key),
        serialized_value_size=-1 if value is None else len(value),
        headers=headers,
    )

"""Records that aiokafka's producer would not make: any bytes as names, any time, bombs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from protoflow.transports.kafka.names import physical

from tests.acceptance.contract import pb
from tests.acceptance.harness import Harness
from tests.hostile.table import NUMBERS, Hostile
from tests.hostile.writers import Parcel, raw

_GZIP = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is special about a record."""

    headers: tuple[tuple[bytes, bytes | None], ...] = ()
    time: int | None = None
    compression: int = 0


class _Name(str):
    """The name of a header in bytes that are no text."""

    raw: bytes

    @classmethod
    def of(cls, name: bytes) -> _Name:
        made = cls("name")
        made.raw = name
        return made

    def encode(self, *_: object) -> bytes:
        return self.raw


class KafkaWriter:
    """Puts record batches together by hand."""

    limit = 1_048_588 - 1_500

    def __init__(self, harness: Harness) -> None:
        self._address = harness.url.removeprefix("kafka://")
        self._partitions: dict[str, int] = {}
        self._producer: AIOKafkaProducer

    def rows(self) -> list[Hostile]:
        return _rows()

    async def open(self) -> None:
        self._producer = AIOKafkaProducer(bootstrap_servers=self._address, linger_ms=0)
        await self._producer.start()

    async def write(self, parcel: Parcel) -> bool:
        record = parcel.native or Record()
        topic = physical(parcel.topic)
        if topic not in self._partitions:
            self._partitions[topic] = len(await self._producer.partitions_for(topic))
        headers: list[tuple[_Name, bytes | None]] = [(_Name.of(b"ce_id"), raw(parcel.id))]
        headers += [(_Name.of(raw(name)), raw(value)) for name, value in parcel.metadata.items()]
        headers += [(_Name.of(name), value) for name, value in record.headers]
        batch = self._producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(
            2, record.compression, 0, -1, -1, 0, batch_size=1 << 26
        )
        batch.append(timestamp=record.time, key=parcel.key, value=parcel.payload, headers=headers)
        batch.close()
        partition = zlib.crc32(parcel.key or b"") % self._partitions[topic]
        try:
            await (await self._producer.send_batch(batch, topic, partition=partition))
        except KafkaError:
            return False
        return True

    async def wrongs(self) -> list[str]:
        return []

    async def close(self) -> None:
        await self._producer.stop()


def _rows() -> list[Hostile]:
    cases: list[tuple[str, str, Record]] = []
    for kind, name in {
        "Latin-1": b"M\xfcller", "only ones": b"\xff\xfe", "cut": b"ce_typ\xc3", "empty": b"",
        "surrogate": b"\xed\xa0\x80", "overlong": b"\xc0\x80", "long": b"n" * 30_000,
        "line breaks": b"a\r\nb: c", "zero": b"\0",
    }.items():  # fmt: skip
        cases.append(("name of a header", kind, Record(headers=((name, b"v"),))))
    attributes = (
        b"ce_id", b"ce_type", b"ce_source", b"content-type", b"correlation_id", b"traceparent",
        b"pf_group", b"pf_attempt", b"pf_due", b"message_id",
    )  # fmt: skip
    for name in attributes:
        cases += [
            (name.decode(), "null", Record(headers=((name, None),))),
            (name.decode(), "twice", Record(headers=((name, b"a"), (name, b"b")))),
            (name.decode(), "no UTF-8", Record(headers=((name, b"\xff\xfe"),))),
            (name.decode(), "other case", Record(headers=((name.upper(), b"X"),))),
        ]
    for kind, time in {
        "0": 0, "none": -1, "negative": -(2**50), "microseconds": 1753500000 * 10**6,
        "2^62": 2**62, "2^63 - 1": 2**63 - 1, "year 10000": 253402300800000,
    }.items():  # fmt: skip
        cases.append(("timestamp", kind, Record(time=time)))
    cases += [
        ("headers", "5,000", Record(headers=tuple((b"h%d" % n, b"v") for n in range(5000)))),
        ("headers", "900 kB in one", Record(headers=((b"h", b"v" * 900_000),))),
        ("compression", "gzip", Record(compression=_GZIP)),
    ]
    cases += [
        ("x-delivery-count", kind, Record(headers=((b"x-delivery-count", raw(value)),)))
        for kind, value in NUMBERS.items()
    ]
    rows = [Hostile(field=field, kind=kind, native=record) for field, kind, record in cases]
    bomb = Record(compression=_GZIP)
    rows.append(Hostile(field="compression", kind="bomb", payload=b"\xff" * 8_000_000, native=bomb))
    large = pb.Task(number=-1, key="k0", blob=b"\0" * 8_000_000).SerializeToString()
    rows.append(Hostile(field="compression", kind="large", payload=large, native=bomb))
    return rows

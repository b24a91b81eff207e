"""Encodes messages as records, and refuses those that the broker would refuse."""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.transports.kafka import headers, names
from protoflow.transports.kafka.broker_queries import HEADROOM, topic_limit
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import malformed, too_large
from protoflow.transports.kafka.options import Compression

#: The number of cached limits.
_REMEMBERED = 4096
#: The bytes of a batch besides its records.
_BATCH_OVERHEAD = 61
#: The highest number of bytes of a record with this key, value and headers.
_record_size = DefaultRecordBatchBuilder.estimate_size_in_bytes


@dataclass(slots=True, eq=False)
class EncodedRecord:
    """An encoded record; `size` is the broker's highest count of its bytes."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: list[headers.Header]
    size: int


class RecordEncoder:
    """Encodes records within the limits of topics, and refuses messages that are too large.

    If the broker refused a batch, the sequence numbers of the producer would become invalid.
    """

    def __init__(self, context: KafkaContext) -> None:
        self._context = context
        self._limits: dict[str, int] = {}

    async def learn(self, topic: str) -> None:
        """Asks for the limit of a physical topic, once."""
        if topic not in self._limits:
            if len(self._limits) >= _REMEMBERED:  # the names of topics may come from data
                self._limits.clear()
            largest = self._context.options.max_request_size
            if topic in self._context.roomy or names.is_retry(topic):
                largest += HEADROOM
            limit = await topic_limit(self._context.admin, topic)
            self._limits[topic] = min(limit or largest, largest)

    def forget(self) -> None:
        """Forgets the limits, which may have changed."""
        self._limits.clear()

    def knows(self, topic: str) -> bool:
        """Whether the limit of a physical topic is known."""
        return topic in self._limits

    def physical(self, topic: str) -> str:
        """Returns the topic at the broker. Raises PublishRefusedError for an invalid name."""
        name = self._context.physical(topic)
        if not names.is_valid(name):
            raise PublishRefusedError(f"kafka: {topic!r} is not a valid topic name")
        return name

    def limit(self, topic: str) -> int:
        """Returns the largest batch for a physical topic in bytes."""
        return self._limits.get(topic, self._context.options.max_request_size)

    def encode(self, message: Message, topic: str) -> EncodedRecord:
        """Returns the record. Raises PublishRefusedError for a message that no broker accepts."""
        wanted, size = self.measure(message, topic)
        return EncodedRecord(topic, message.payload, message.key, wanted, size)

    def measure(self, message: Message, topic: str) -> tuple[list[headers.Header], int]:
        """Returns the headers of a record and its size. Raises PublishRefusedError for a message
        that no broker accepts, or any error of a malformed message."""
        value, key = message.payload, message.key
        if value is None and key is None:
            raise PublishRefusedError(f"kafka: topic {topic}: a tombstone needs a key")
        wanted = headers.write(message)
        size = _BATCH_OVERHEAD + _record_size(key, value, wanted)
        limit = self._limits.get(topic, size)
        if size > limit and self._is_exact(size):
            # The limit is queried again next time: an operator may raise it, and then waiting dead
            # letters must be sent.
            self._limits.pop(topic, None)
            raise too_large(topic, size, limit)
        return wanted, size

    def _is_exact(self, size: int) -> bool:
        """Whether the size is exact; a compressed message may fit above the limit."""
        options = self._context.options
        largest = options.max_request_size + HEADROOM
        return options.compression is Compression.NONE or size > largest


def checked(record: EncodedRecord) -> EncodedRecord:
    """Returns a record that aiokafka can write. Raises PublishRefusedError.

    In a transaction, an invalid record would make all other records fail.
    """
    parts = (record.value, record.key)
    if not all(part is None or isinstance(part, bytes | bytearray | memoryview) for part in parts):
        raise malformed(TypeError("no bytes"), record.topic)
    try:
        for name, _ in record.headers:
            name.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise malformed(error, record.topic) from error
    return record

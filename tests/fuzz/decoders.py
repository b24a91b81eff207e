"""Decoders alone, with any bytes: a value or an error of Protoflow's, soon."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from protoflow.codecs import cloudevents, payload
from protoflow.errors import ProtoflowError
from protoflow.message import Message
from protoflow.transports.kafka import headers as kafka_headers
from protoflow.transports.nats.wire import headers as nats_headers
from protoflow.transports.rabbitmq import codec, reading

from tests.acceptance.contract import pb
from tests.fuzz.generate import TOPICS, Generator
from tests.fuzz.intake import Report
from tests.transports.kafka.batches import batch_of, fetched

#: Seconds that one message may take.
SLOW = 1.0
_CLASSES: tuple[type[ProtoMessage], ...] = (pb.Task, pb.Thing, pb.Report)
_LINES = (
    "ce-id", "CE-TYPE", "ce-", "Content-Type", "pf_key", "pf_encoded", "pf_tombstone", "ce_id",
    "Nats-Msg-Id", "nats-x", "ce-partitionkey", "Status", "", " x", "a:b",
)  # fmt: skip


def _payload(generator: Generator, message: Message) -> None:
    kind = _CLASSES[generator.below(3)]
    payload.decode(message.payload or b"", message.metadata.get("content-type"), kind)


def _envelope(generator: Generator, message: Message) -> None:
    cloudevents.unwrap(message)


def _untold(generator: Generator, message: Message) -> None:
    cloudevents.without_content_type(message)


def _kafka(generator: Generator, message: Message) -> None:
    headers: list[tuple[str, bytes | None]] = [
        (name, None if generator.chance(0.05) else value.encode(errors="surrogatepass"))
        for name, value in message.metadata.items()
    ]
    headers += [(generator.text(), generator.raw(9)) for _ in range(generator.below(3))]
    kafka_headers.read(headers)


def _nats(generator: Generator, message: Message) -> None:
    block = bytearray(b"NATS/1.0")
    block += (b"", b" 100 x", b" 409")[generator.below(3)] + b"\r\n"
    for _ in range(generator.below(6)):
        name = _LINES[generator.below(len(_LINES))]
        value = generator.text().encode(errors="surrogatepass")
        block += name.encode() + (b": ", b":", b"")[generator.below(3)] + value + b"\r\n"
    block += b"\r\n"
    for _ in range(generator.below(3)):
        block[generator.below(len(block))] = generator.below(256)
    found = nats_headers.decode("t", message.payload or b"", bytes(block))
    nats_headers.read(bytes(block))
    found.metadata.get("ce_type", "")


def _kafka_batch(generator: Generator, message: Message) -> None:
    records = [(message.payload, generator.chance(0.3)) for _ in range(1 + generator.below(3))]
    result, _, _ = fetched(batch_of(0, records), 0)
    for _ in range(10):
        if not result.has_more():
            break
        for record in result.getall(2):
            kafka_headers.read(record.headers)


def _amqp(generator: Generator, message: Message) -> None:
    header = bytearray(_amqp_header(generator, message))
    if generator.chance(0.3):
        for _ in range(generator.below(4)):
            header[generator.below(len(header))] = generator.below(256)
    _, properties = reading.properties(bytes(header))
    found, _ = codec.decode("t", properties, message.payload or b"", "protoflow")
    codec.deliveries(properties, True)
    codec.sent_at(properties)
    codec.last_death(found)


def _amqp_header(generator: Generator, message: Message) -> bytes:
    """The frame before a body: the properties of which others have their own ideas, too."""
    table = b""
    for name, value in message.metadata.items():
        known = name.encode(errors="surrogatepass")[:127]
        known = known if generator.chance(0.95) else generator.raw(20)
        text = value.encode(errors="surrogatepass")
        native = b"S" + struct.pack(">I", len(text)) + text
        if generator.chance(0.2):
            kind = b"TlLIisudfbBtVAFDx"[generator.below(17) :][:1]
            native = kind + generator.raw(18)
        table += bytes((len(known),)) + known + native
    stamp = struct.pack(">Q", generator.below(1 << (1 + generator.below(64))))
    texts = [generator.text().encode(errors="surrogatepass")[:99], generator.raw(20)]
    id, app = (bytes((len(text),)) + text for text in texts)
    flags = 1 << 13 | 1 << 7 | 1 << 6 | 1 << 3
    body = struct.pack(">I", len(table)) + table + id + stamp + app
    return struct.pack(">HHQH", 60, 0, len(message.payload or b""), flags) + body


DECODERS: dict[str, Callable[[Generator, Message], Any]] = {
    "payload": _payload,
    "envelope": _envelope,
    "without content type": _untold,
    "Kafka's headers": _kafka,
    "NATS's headers": _nats,
    "Kafka's batches": _kafka_batch,
    "AMQP's properties": _amqp,
}


def run(seed: int, messages: int, report: Report, *, first: int = 0) -> None:
    """Gives so many messages to every decoder."""
    for number, (generator, message) in enumerate(_messages(seed, first, messages), start=first):
        report.messages += 1
        for name, decode in DECODERS.items():
            before = time.thread_time()  # of the CPU: a busy machine is not a slow decoder
            try:
                decode(generator, message)
            except ProtoflowError:
                pass
            except Exception as error:
                where = f"seed {seed}, decoders, message {number}"
                report.add("foreign", f"{name}: {type(error).__name__}: {error!s:.60}", where)
            if (spent := time.thread_time() - before) > SLOW:
                report.add("hot", f"{name}: {spent:.1f} s", f"seed {seed}, message {number}")


def _messages(seed: int, first: int, count: int) -> Iterator[tuple[Generator, Message]]:
    for number in range(first, first + count):
        generator = Generator(seed, -number - 1, "group")
        yield generator, generator.message(TOPICS[number % len(TOPICS)], number)

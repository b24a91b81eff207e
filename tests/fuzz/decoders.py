"""Decoders alone, with any bytes: a value or an error of Protoflow's, soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.message import Message as ProtoMessage
from protoflow.codecs import cloudevents, payload
from protoflow.errors import ProtoflowError
from protoflow.message import Message
from protoflow.transports.kafka import headers as kafka_headers
from protoflow.transports.nats.wire import headers as nats_headers

from tests.acceptance.contract import pb
from tests.fuzz.generate import TOPICS, Generator
from tests.fuzz.intake import Report

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


DECODERS: dict[str, Callable[[Generator, Message], Any]] = {
    "payload": _payload,
    "envelope": _envelope,
    "without content type": _untold,
    "Kafka's headers": _kafka,
    "NATS's headers": _nats,
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

"""A flush confirms what went before it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.brokers import url_or_skip


async def test_a_ping_does_not_overtake_what_is_not_written_yet() -> None:
    pytest.importorskip("nats")
    from protoflow.transports.nats.wire.client import FastClient

    url = url_or_skip("nats")
    client = FastClient()
    await client.connect(url)
    written: list[bytes] = []
    transport: Any = client._transport
    write, write_lines = transport.write, transport.writelines

    def record(data: bytes) -> None:
        written.append(data)
        write(data)

    def record_lines(lines: list[bytes]) -> None:
        written.extend(lines)
        write_lines(lines)

    transport.write, transport.writelines = record, record_lines
    try:
        await client.subscribe("flush.test")
        await client.publish("flush.test", b"1")
        await client.flush()
    finally:
        await client.close()
    commands = [command.split(b" ")[0].strip() for command in written]
    assert commands.index(b"SUB") < commands.index(b"PUB") < commands.index(b"PING")

"""Publishing where it cannot work: one error, whatever the transport."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Config, Service, connect, connect_sync
from protoflow.errors import ProtoflowError
from protoflow.output import Output

from tests.middleware.harness import TO_WORK, config

OUTPUTS = (Output(StringValue(value="a")),)
# Nothing listens there: an attempt to connect would be another error, and would take a while.
URLS = (
    "memory://", "sqlite:///{directory}/q.db", "kafka://127.0.0.1:1", "amqp://127.0.0.1:1",
    "nats://127.0.0.1:1", "jetstream://127.0.0.1:1",
)  # fmt: skip


@pytest.mark.parametrize("url", URLS)
async def test_publishing_before_opening_is_one_error(url: str, tmp_path: Path) -> None:
    made: Any = connect(url.format(directory=tmp_path), environ={})
    with pytest.raises(ProtoflowError, match=r"^not open: publish inside"):
        await made.publish_outputs(TO_WORK, OUTPUTS)
    service = Service(Config(environ={}, transport=url.format(directory=tmp_path)))
    with pytest.raises(ProtoflowError, match=r"^not open: publish inside"):
        await service.publish_outputs(TO_WORK, OUTPUTS)


async def test_publishing_after_closing_is_the_same_error() -> None:
    async with connect("memory://", environ={}) as publisher:
        await publisher.publish_outputs(TO_WORK, OUTPUTS)
    with pytest.raises(ProtoflowError, match=r"^not open"):
        await publisher.publish_outputs(TO_WORK, OUTPUTS)
    service = Service(config(transport="memory://"))
    async with service:
        await service.publish_outputs(TO_WORK, OUTPUTS)
    with pytest.raises(ProtoflowError, match=r"^not open"):
        await service.publish_outputs(TO_WORK, OUTPUTS)


def test_without_a_loop_it_is_the_same_error_after_closing() -> None:
    made = connect_sync("memory://", environ={})
    with made:
        made.publish_outputs(TO_WORK, OUTPUTS)
    with pytest.raises(ProtoflowError, match=r"^not open"):
        made.publish_outputs(TO_WORK, OUTPUTS)


async def test_another_loop_is_reported_what_to_do() -> None:
    texts: list[str] = []

    async with connect("memory://", environ={}) as publisher:

        def elsewhere() -> None:
            try:
                asyncio.run(publisher.publish_outputs(TO_WORK, OUTPUTS))
            except ProtoflowError as error:
                texts.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
    (text,) = texts
    assert "run_coroutine_threadsafe" in text
    assert "connect_sync" in text


def test_memory_that_nobody_asked_for_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    Service(Config(environ={}))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "PROTOFLOW_TRANSPORT" in record.getMessage()
    caplog.clear()
    Service(Config(environ={}, transport="memory://"))
    Service(Config(environ={"PROTOFLOW_TRANSPORT": "memory://"}))
    assert caplog.records == []

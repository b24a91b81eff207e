from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog
from google.protobuf.any_pb2 import Any as Any_
from google.protobuf.struct_pb2 import Struct, Value
from protoflow import Context, Output, Service, testing
from protoflow.contract.spec import BatchPolicy, MessageSpec, PublicationSpec
from protoflow.message import Message
from protoflow.middleware import default_chain, log_messages

from tests.middleware.harness import NAME, config, nothing, put, running, worker
from tests.middleware.rules import PLAIN, TO_PLAIN, Plain

LOGGER = "protoflow.messages"


def chain(**given: Any) -> Any:
    return default_chain().replace("log_messages", log_messages(**given))


async def test_every_run_is_a_record_with_fields(caplog: pytest.LogCaptureFixture) -> None:
    async def flaky(_message: object, context: Context) -> None:
        if context.attempt == 1:
            raise ValueError("secret words")

    caplog.set_level(logging.DEBUG, LOGGER)
    async with running(worker(flaky)) as service:
        (id,) = await put(service, "secret words", metadata={"correlation_id": "c1"})
    first, second = (record for record in caplog.records if record.name == LOGGER)
    assert first.levelno == logging.DEBUG
    assert first.getMessage() == "handled"
    fields = second.__dict__
    reported = {
        "handler": NAME, "topic": "work", "group": "workers", "message_id": id,
        "correlation_id": "c1", "attempt": 2, "outcome": "done",
    }  # fmt: skip
    assert {name: fields[name] for name in reported} == reported
    assert fields["duration_ms"] == 0
    assert "payload" not in fields
    assert "secret" not in caplog.text


async def test_without_debug_there_is_no_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    async with running(worker(nothing)) as service:
        await put(service, "a")
    assert not [record for record in caplog.records if record.name == LOGGER]


@pytest.mark.parametrize("by_setting", [True, False])
async def test_payloads_on_request_hide_sensitive_fields(
    caplog: pytest.LogCaptureFixture, by_setting: bool
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    given: dict[str, Any] = (
        {"log_payloads": True} if by_setting else {"middleware": chain(payload=True)}
    )
    message = Plain(email="eve@example.com", cards=[{"number": "4111"}, {"number": "4222"}])
    message.self.email = "adam@example.com"
    async with running(worker(nothing, input=PLAIN), **given) as service:
        await service.publish_outputs(TO_PLAIN, [Output(message)])
        await service.settled()
    (record,) = (record for record in caplog.records if record.name == LOGGER)
    assert record.__dict__["payload"] == {
        "email": "***",
        "cards": [{"number": "***"}, {"number": "***"}],
        "self": {"email": "***"},
    }


async def test_batches_show_their_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    handler = worker(nothing, batch=BatchPolicy(max_messages=2, max_wait=0.1))
    async with running(handler, log_payloads=True) as service:
        await put(service, "a", "b")
    (record,) = (record for record in caplog.records if record.name == LOGGER)
    assert record.__dict__["payload"] == ["***", "***"]


async def test_structlog_sees_the_fields() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    logger = logging.getLogger("test.structlog")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    async with running(worker(nothing), middleware=chain(logger=logger)) as service:
        await put(service, "a")
    record = json.loads(out.getvalue())
    assert record["handler"] == NAME
    assert record["outcome"] == "done"
    assert "duration_ms" in record


async def test_a_payload_that_cannot_be_shown_changes_no_outcome(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    any_ = MessageSpec(type="google.protobuf.Any", message_class=Any_, topic="any")
    struct = MessageSpec(type="google.protobuf.Struct", message_class=Struct, topic="struct")
    runs: list[object] = []

    async def handle(message: object, _context: Context) -> None:
        runs.append(message)

    handlers = (
        worker(handle, input=any_),
        worker(handle, input=struct, name="test.v1.Structs.Do", group="structs"),
    )
    unknown = Any_(type_url="type.googleapis.com/nobody.knows.It", value=b"\xff")
    odd = Struct(fields={"a": Value(number_value=float("nan"))})
    async with running(*handlers, log_payloads=True) as service:
        for spec, message in ((any_, unknown), (struct, odd)):
            publication = PublicationSpec(topic=spec.topic or "", message=spec)
            await service.publish_outputs(publication, [Output(message)])
        await service.settled()
        assert service.dead_letters == []
    assert len(runs) == 2
    shown = [record.__dict__["payload"] for record in caplog.records if record.name == LOGGER]
    assert {"@type": "type.googleapis.com/nobody.knows.It", "value": "1 byte"} in shown


async def test_a_record_that_fails_changes_no_outcome(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    def setup(service: Service) -> None:
        async def handle(_value: object, context: Context) -> None:
            context.decoded = Broken()

        service.register_json_handler("json", "in", handle)

    caplog.set_level(logging.DEBUG, LOGGER)
    async with testing.run(config=config(log_payloads=True), setup=setup) as tested:
        await tested.service.publish(Message(id="1\nforged", topic="in", payload=b"{}"))
        await tested.settled()
        assert [run.attempt for run in tested.runs] == [1]
        assert tested.dead_letters == []
    texts = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert texts == ["a message was not logged"]

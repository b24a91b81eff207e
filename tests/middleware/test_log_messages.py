from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog
from protoflow import Context, Output
from protoflow.middleware import default_chain, log_messages
from protoflow.spec import BatchPolicy

from tests.middleware.kit import NAME, nothing, put, running, worker
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
    assert first.getMessage() == f"{NAME}: {id} retryafter"
    fields = second.__dict__
    told = {
        "handler": NAME, "topic": "work", "group": "workers", "message_id": id,
        "correlation_id": "c1", "attempt": 2, "outcome": "done",
    }  # fmt: skip
    assert {name: fields[name] for name in told} == told
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

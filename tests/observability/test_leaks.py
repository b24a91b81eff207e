"""Planted secrets and sensitive fields are in no log, repr, error, metric, span or page.

Traps B21 (credentials printed at start), B22 (payloads in errors and logs), B23 (open pages).
"""

from __future__ import annotations

import json
import logging
import pickle
from dataclasses import asdict
from typing import Any

import pytest
from aiohttp import ClientSession
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from protoflow import Config, Context, Output, Service, Unprocessable
from protoflow.config.secret import Secret
from protoflow.errors import ConfigError
from protoflow.middleware import Dependencies, logging_hooks
from protoflow.observability.prometheus import Exposition
from protoflow.web.routes import ROUTES

from tests.middleware.harness import config, running, worker
from tests.middleware.rules import PLAIN, TO_PLAIN, Plain

PASSWORD, TOKEN, OPTION = "pw-hunter2", "tok-hunter3", "opt-hunter4"
EMAIL, CARD, KEY, HEADER = "eve@sensitive.example", "4111-1111", "key-of-eve", "header-of-eve"
PLANTED = (PASSWORD, TOKEN, OPTION, EMAIL, CARD, KEY, HEADER)


def assert_clean(text: str) -> None:
    for secret in PLANTED:
        assert secret not in text, (
            f"{secret} leaked: ...{text[max(0, text.find(secret) - 200) :][:300]}"
        )


async def fail(message: Any, context: Context) -> None:
    context.logger.debug("handling")
    if message.self.email == "unprocessable":
        raise Unprocessable(f"no good: {message.email}")
    if message.self.email == "cleared":
        text = f"{message.email} {message.cards[0]}"
        message.Clear()
        raise ValueError(text)
    raise ValueError(f"cannot charge {message.cards[0].number} of {message}")


def order(kind: str) -> Output[Any]:
    message = Plain(email=EMAIL, cards=[{"number": CARD}])
    message.self.email = kind
    return Output(message, key=KEY, metadata={"x-customer": HEADER})


@pytest.mark.parametrize("log_payloads", [False, True])
async def test_nothing_leaks(caplog: pytest.LogCaptureFixture, log_payloads: bool) -> None:
    caplog.set_level(logging.DEBUG)
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with running(
        worker(fail, input=PLAIN),
        virtual_time=False,
        dependencies=Dependencies(tracer_provider=provider, hooks=logging_hooks()),
        http_token=TOKEN,
        log_payloads=log_payloads,
    ) as service:
        await service.publish_outputs(
            TO_PLAIN, [order("plain"), order("unprocessable"), order("cleared")]
        )
        await service.settled()
        own = service.service
        port = await own.start_web_ui(0)
        pages = []
        async with ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            dead = own.dead_letters.topics[0]
            ids = [dead_letter.message.id for dead_letter in service.dead_letters]
            assert len(ids) == 3
            paths = ["/nowhere", f"/api/v1/dead-letters?topic={dead}"]
            for route in ROUTES:
                if route.method == "GET":
                    path = route.path.replace("{name}", own.registered[0])
                    paths += {path.replace("{id}", id) for id in ids}
            for path in paths:
                async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    if answer.content_type == "text/event-stream":  # it has no end
                        await answer.content.readuntil(b"event: snapshot\n")
                        page = (await answer.content.readuntil(b"\n\n")).decode()
                    else:
                        page = await answer.text()
                    pages.append(page + str(answer.headers))
        texts = [
            *pages,
            *(span.to_json() for span in exporter.get_finished_spans()),
            *(repr(dead_letter.message) for dead_letter in service.dead_letters),
            *(repr(run.message) for run in service.runs),
            repr(own.config), str(own.config), json.dumps(own.config.describe()),
            repr(own.stats()), json.dumps([info.as_dict() for info in own.handlers()]),
            repr([asdict(info) for info in own.handlers()]),
            Exposition(own.reporter).render()[0].decode(),
            json.dumps(own.counters.dead_letters.snapshot()),
            *(
                one.message.metadata["pf_error_message"] for one in service.dead_letters
            ),
        ]  # fmt: skip
    for record in caplog.records:
        texts += [record.getMessage(), repr(record.__dict__.get("payload")), str(record.exc_text)]
        texts.append(repr({k: v for k, v in record.__dict__.items() if k not in ("args", "msg")}))
    for text in texts:
        assert_clean(text)
    assert "***" in "".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://alice:{PASSWORD}@broker:5672/v",
        f"nats://{PASSWORD}@broker:4222",
        f"kafka://alice:{PASSWORD}@broker:9092?sasl_mechanism=PLAIN",
    ],
)
def test_settings_do_not_show_credentials(url: str) -> None:
    settings = Config(
        environ={}, transport=url, transport_options={"password": OPTION}, http_token=Secret(TOKEN)
    )
    assert_clean(repr(settings))
    assert_clean(str(settings))
    assert_clean(f"{settings.url} {settings.url!r}")
    assert_clean(json.dumps(settings.describe()))
    assert_clean(repr(settings.http_token))
    with pytest.raises(TypeError):
        pickle.dumps(settings.http_token)


def test_mistakes_in_settings_do_not_show_credentials() -> None:
    with pytest.raises(ConfigError) as raised:
        Config(
            transport=f"amqp://alice:{PASSWORD}@broker:notaport/v",
            environ={"PROTOFLOW_HTTP_PORT": "x"},
            http_token=Secret(TOKEN),
        )
    assert_clean(str(raised.value))


async def test_a_broker_that_is_not_there_does_not_show_credentials(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"nats://alice:{PASSWORD}@127.0.0.1:1"
    service = Service(config(transport=url, connect_timeout=0.2))
    with pytest.raises(Exception) as raised:  # noqa: PT011  whatever the transport says
        await service.start()
    assert_clean(f"{raised.value!r} {caplog.text}")

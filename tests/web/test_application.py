"""Deadlines, bounds and faults: what holds for every route."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import pytest
from protoflow.errors import (
    AuthenticationError,
    CapabilityError,
    ConnectionFailedError,
    TransportError,
)
from protoflow.web import application
from protoflow.web.application import Application
from protoflow.web.request import Request, Role
from protoflow.web.response import Response
from protoflow.web.route import Route

from tests.middleware.harness import config


async def _never(*_: Any) -> Response:
    raise AssertionError


PAGE = Route(
    method="GET", path="/page", role=Role.READ, function=_never, summary="", schema="Text", query={}
)
PROBE = dataclasses.replace(PAGE, path="/healthz", role=Role.NONE)


def request(path: str = "/page") -> Request:
    return Request(method="GET", path=path, headers={"host": "localhost"}, local=True)


def application_of(answer: Any, **changes: Any) -> Application:
    return Application(config(), [dataclasses.replace(PAGE, **changes), PROBE], answer)


async def test_what_takes_too_long_is_a_problem() -> None:
    async def slow(_route: Route, _request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    response = await application_of(slow, seconds=0.01).answer(request())
    assert response.status == 504
    response = await application_of(slow, seconds=0.01, role=Role.OPERATE).answer(request())
    assert b"what is done so far stays done" in response.body


async def test_too_many_at_once_are_refused_and_probes_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(application, "_AT_ONCE", 1)
    leave = asyncio.Event()

    async def held(route: Route, _request: Request) -> Response:
        if route.path == "/page":
            await leave.wait()
        return Response()

    app = application_of(held)
    first = asyncio.create_task(app.answer(request()))
    await asyncio.sleep(0)
    assert (await app.answer(request())).status == 503
    assert (await app.answer(request("/healthz"))).status == 200
    leave.set()
    assert (await first).status == 200
    assert (await app.answer(request())).status == 200


async def test_a_stream_counts_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "_AT_ONCE", 1)

    async def parts() -> Any:
        yield b"one"
        yield b"two"

    async def streamed(_route: Route, _request: Request) -> Response:
        return Response(stream=parts())

    app = application_of(streamed)
    for read in (0, 1, 2):
        response = await app.answer(request())
        assert response.stream is not None
        assert (await app.answer(request())).status == 503
        for _ in range(read):
            await anext(response.stream)
        await response.close()
    response = await app.answer(request())
    assert response.status == 200
    await response.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionFailedError("no broker"), 503),
        (AuthenticationError("refused"), 502),
        (TransportError("broken"), 502),
        (CapabilityError("none"), 501),
        (RuntimeError("internals"), 500),
    ],
)
async def test_errors_are_problems(
    error: Exception, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_route: Route, _request: Request) -> Response:
        raise error

    with caplog.at_level(logging.INFO):
        response = await application_of(fail).answer(request())
    assert (response.status, response.content_type) == (expected, "application/problem+json")
    assert (str(error).encode() in response.body) == (expected != 500)
    assert ("a page failed: RuntimeError" in caplog.text) == (expected == 500)
    assert "internals" not in caplog.text

"""Streams of viewers: what they get, how many there are, and when they end."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from protoflow.web import live
from protoflow.web.live import Live
from protoflow.web.request import Request
from protoflow.web.response import Problem

from tests.middleware.harness import NAME, nothing, put, running, worker
from tests.web.clients import ASGI, TOKEN, TOKENS, Aiohttp, Client, bearer, broken, served
from tests.web.test_routes import validate
from tests.web.test_workers import workers


async def first_event(stream: Any) -> tuple[str, Any]:
    """The first event of a stream, after the line that is for reconnecting."""
    text = ""
    async for part in stream:
        text += part.decode()
        for block in text.split("\n\n")[:-1]:
            if block.startswith("event: "):
                event, _, data = block.partition("\ndata: ")
                return event.removeprefix("event: "), json.loads(data)
    raise AssertionError(text)


async def test_a_viewer_gets_snapshots_and_goes() -> None:
    async with running(worker(broken), virtual_time=False) as service:
        await put(service, "bad", "good")
        port = await service.service.start_web_ui(0)
        host = service.service._inspection.host
        async with ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{port}/api/v1/stream")
            assert answer.content_type == "text/event-stream"
            event, content = await first_event(answer.content.iter_any())
            assert event == "snapshot"
            validate(content, "Snapshot")
            assert content["handlers"][0]["counters"]["handled"] == 1
            assert content["topics"][0]["waiting"] == 1
            assert host.live.viewers == 1
            answer.close()
            async with asyncio.timeout(10):
                while host.live.viewers:
                    await asyncio.sleep(0.05)


async def test_a_drain_ends_streams_first() -> None:
    started = asyncio.Event()
    streams_at_end: list[int] = []

    async def slow(_message: Any, _context: Any) -> None:
        started.set()
        await asyncio.sleep(0.5)
        streams_at_end.append(service.service._inspection.host.live.viewers)

    async with running(worker(slow), virtual_time=False) as service:
        port = await service.service.start_web_ui(0)
        async with ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{port}/api/v1/stream")
            await first_event(answer.content.iter_any())
            publishing = asyncio.ensure_future(put(service, "one"))
            await started.wait()
            await service.service.stop()
            async with asyncio.timeout(5):
                assert await answer.content.read() is not None
            publishing.cancel()
    assert streams_at_end == [0]


async def test_a_stream_through_asgi_ends_with_its_client() -> None:
    async with served("asgi") as (service, client):
        assert isinstance(client, ASGI)
        gone = asyncio.Event()
        sent: list[Any] = []

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 3:
                gone.set()

        scope = {
            "type": "http", "method": "GET", "path": "/api/v1/stream", "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:1")], "client": ("127.0.0.1", 2),
            "server": ("127.0.0.1", 1),
        }  # fmt: skip
        async with asyncio.timeout(10):
            await client._app(scope, receive, send)
        assert service.service._inspection.host.live.viewers == 0
        assert b"event: snapshot" in sent[2]["body"]


async def test_thirty_two_viewers() -> None:
    one = Live()

    async def take() -> dict[str, Any]:
        return {}

    request = Request(method="GET", path="/")
    streams = [one.stream(take, request) for _ in range(32)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(Problem, match="32 viewers"):
        one.stream(take, request)
    await streams[0].aclose()  # type: ignore[attr-defined]  # a generator
    one.stream(take, request)
    one.end()
    with pytest.raises(Problem, match="stops"):
        one.stream(take, request)


async def test_a_snapshot_is_taken_once_for_all_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PERIOD", 0.2)
    taken = 0

    async def take() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        await asyncio.sleep(0)
        return {"number": taken}

    one = Live()
    streams = [one.stream(take, Request(method="GET", path="/")) for _ in range(10)]
    for stream in streams:
        assert b"retry" in await anext(stream)
    for number in (1, 2, 3):
        parts = await asyncio.gather(*(anext(stream) for stream in streams))
        assert set(parts) == {b'event: snapshot\ndata: {"number": %d}\n\n' % number}
    # One who leaves while it is made does not take it from the others.
    await asyncio.sleep(0.2)
    first = asyncio.ensure_future(anext(streams[0]))
    second = asyncio.ensure_future(anext(streams[1]))
    await asyncio.sleep(0.001)
    first.cancel()
    assert b'"number": 4' in await second


async def _joined(task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        await task


@pytest.mark.parametrize("behind", ["service", "gateway"])
async def test_a_stream_ends_with_its_session(
    behind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        if behind == "service":
            _service, client = await stack.enter_async_context(served("aiohttp", **TOKENS))
        else:
            _services, client = await stack.enter_async_context(workers(tmp_path, **TOKENS))
        assert isinstance(client, Aiohttp)
        cookie = await _cookie(client)
        url = f"{client._base}/api/v1/stream"
        first = await client._session.get(url, headers={"cookie": f"theme=dark; {cookie}"})
        bearing = await client._session.get(url, headers=bearer(TOKEN))
        for answer in (first, bearing):
            await first_event(answer.content.iter_any())
        ended = {"cookie": cookie, "x-protoflow": "1"}
        assert (await client.ask("POST", "/api/v1/logout", headers=ended)).status == 200
        await _joined(asyncio.create_task(first.content.read()))
        # Sessions end by themselves, too.
        second = await client._session.get(url, headers={"cookie": await _cookie(client)})
        await first_event(second.content.iter_any())
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 + 1)
        await _joined(asyncio.create_task(second.content.read()))
        assert await first_event(bearing.content.iter_any())
        for answer in (first, second, bearing):
            answer.close()


async def _cookie(client: Client) -> str:
    body = json.dumps({"token": TOKEN}).encode()
    answer = await client.ask("POST", "/api/v1/login", body=body)
    return answer.headers["set-cookie"].partition(";")[0]


async def test_a_broken_snapshot_is_a_sentence_and_a_comment_keeps_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "PERIOD", 0.01)
    monkeypatch.setattr(live, "_ALIVE", 0.02)

    async def take() -> dict[str, Any]:
        raise Problem(502, "the broker is away")

    parts = []
    async for part in Live().stream(take, Request(method="GET", path="/")):
        parts.append(part)
        if len(parts) > 8:
            break
    assert any(b"event: problem" in part and b"the broker is away" in part for part in parts)
    assert b": alive\n\n" in parts


async def test_nothing_is_sampled_without_a_viewer() -> None:
    async with served("aiohttp", do=nothing) as (service, client):
        await put(service, "good")
        host = service.service._inspection.host
        assert not host.live.samples
        assert (await client.ask("GET", "/api/v1/history")).json == {
            "recorded": False,
            "note": "the journal is off: set `journal` to a file to keep a history",
            "minutes": [],
            "samples": [],
        }
        await client.ask("GET", "/api/v1/snapshot")
        await client.ask("GET", "/api/v1/snapshot")
        (sample,) = (await client.ask("GET", "/api/v1/history")).json["samples"]
        assert sample["handled"] == 1


async def test_history_and_actions_come_from_the_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    async with served("aiohttp", journal=path) as (service, client):
        await put(service, "bad", "good")
        await client.ask("POST", "/api/v1/pause")
        service.service._components.journaling._sampling.sample()  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            while not (await client.ask("GET", "/api/v1/actions")).json["actions"]:
                await asyncio.sleep(0.1)
        (action,) = (await client.ask("GET", "/api/v1/actions?limit=5")).json["actions"]
        assert (action["action"], action["target"]) == ("pause", "work/workers")
        assert (action["role"], action["address"]) == ("operate", "127.0.0.1")
        assert (action["detail"], action["result"]) == ("", "done")
        found = (await client.ask("GET", f"/api/v1/history?handler={NAME}")).json
        assert found["recorded"]
        assert sum(one["dead_lettered"] for one in found["minutes"]) == 1
        assert (await client.ask("GET", "/api/v1/actions?limit=0")).status == 400


async def test_workers_share_one_stream(tmp_path: Path) -> None:
    async with workers(tmp_path) as (services, client):
        await put(services[0], "good")
        await put(services[1], "good", "bad")
        url = f"{client._base}/api/v1/stream"
        async with client._session.get(url) as answer:
            event, content = await first_event(answer.content.iter_any())
        assert event == "snapshot"
        validate(content, "Snapshot")
        assert len(content["processes"]) == 2
        assert content["handlers"][0]["counters"]["handled"] == 2

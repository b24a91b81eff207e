from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web
from protoflow import Config, Context, Service
from protoflow.errors import ConfigError, RegistrationError
from protoflow.http_server.deadlines import Deadlines
from protoflow.testing import TestedService

from tests.middleware.harness import NAME, config, nothing, put, running, worker

DEAD = "work..workers..dead"


async def broken(message: Any, _context: Context) -> None:
    if message.value.startswith("bad"):
        raise ValueError(f"no good: {message.value}")


class Client:
    def __init__(self, session: ClientSession, port: int) -> None:
        self.session = session
        self.base = f"http://127.0.0.1:{port}"

    async def ask(self, method: str, path: str, **given: Any) -> tuple[int, Any, dict[str, str]]:
        async with self.session.request(method, self.base + path, **given) as answer:
            text = await answer.text()
            body = json.loads(text) if answer.content_type.endswith("json") else text
            return answer.status, body, dict(answer.headers)

    async def get(self, path: str, **given: Any) -> Any:
        status, body, _ = await self.ask("GET", path, **given)
        assert status == 200, body
        return body


@asynccontextmanager
async def served(
    *, do: Any = broken, **settings: Any
) -> AsyncIterator[tuple[TestedService, Client]]:
    async with running(worker(do), virtual_time=False, **settings) as service:
        port = await service.service.start_web_ui(0)
        async with ClientSession() as session:
            yield service, Client(session, port)


async def test_handlers_are_reported_in_the_shape_of_go() -> None:
    async with served() as (service, client):
        await put(service, "good", "bad")
        (info,) = await client.get("/api/handlers")
    assert info["name"] == NAME
    assert info["consume_queue"] == "work"
    assert info["publish_queue"] == ""
    stats = info["stats"]
    assert stats["messages_processed"] == 1
    assert stats["messages_failed"] == 1
    assert stats["total_processing_time_ns"] > 0
    assert stats["last_processed_at"].endswith("Z")
    assert stats["latency"].keys() == {
        "average_ns", "p50_ns", "p95_ns", "p99_ns", "last_ns", "sample_size",
    }  # fmt: skip
    assert stats["throughput"]["messages_in_window"] == 4
    assert stats["throughput"].keys() == {
        "current_rps", "window_seconds", "messages_in_window", "total_messages",
    }  # fmt: skip
    assert stats["errors"]["other"] == 3
    assert stats["errors"]["last_error"] == "ValueError"
    assert stats["resource"]["memory_bytes"] > 1_000_000
    assert stats["resource"]["tasks"] > 1
    assert stats["backlog"]["in_flight"] == 0
    assert stats["backlog"]["max_in_flight"] >= 1
    assert stats["backlog"]["last_queue_depth"] == 0
    assert [item["status"] for item in stats["dependencies"]] == ["healthy", "healthy"]


async def test_metrics_are_served_where_everything_else_is() -> None:
    async with served() as (service, client):
        await put(service, "good")
        text = await client.get("/metrics")
        assert f'protoflow_messages_total{{group="workers",handler="{NAME}"' in text


async def test_beyond_this_machine_the_pages_need_a_token() -> None:
    async with served(http_host="0.0.0.0") as (_service, client):
        assert (await client.ask("GET", "/api/handlers"))[0] == 403
        assert (await client.ask("GET", "/healthz"))[0] == 200
        assert (await client.ask("GET", "/metrics"))[0] == 200
    async with served(http_host="0.0.0.0", http_token="x") as (_service, client):
        await client.get("/api/handlers", headers={"Authorization": "Bearer x"})


def raw_request(
    line: str, *headers: bytes, body: bytes = b"", host: bytes | None = b"localhost"
) -> bytes:
    lines = [f"{line} HTTP/1.1".encode()]
    lines += [] if host is None else [b"Host: " + host]
    lines += [*headers, b"Connection: close", b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


HOSTILE = {
    "host [": raw_request("GET /api/handlers", host=b"["),
    "host [::1": raw_request("GET /healthz", host=b"[::1"),
    "host bytes": raw_request("GET /healthz", host=b"\xff\xfe"),
    "no host": raw_request("GET /healthz", host=None),
    "origin http://[": raw_request("GET /api/handlers", b"Origin: http://["),
    "bearer bytes": raw_request("GET /api/handlers", b"Authorization: Bearer \xff\xfe"),
    "bearer umlaut": raw_request("GET /api/handlers", "Authorization: Bearer ä".encode()),
    "charset": raw_request(
        "POST /api/v1/dead-letters/replay",
        b"Content-Type: application/json; charset=nope",
        body=b"{}",
    ),
    "no utf-8": raw_request("POST /api/v1/dead-letters/purge", body=b"\xff\xfe"),
    "deep": raw_request("POST /api/v1/dead-letters/purge", body=b"[" * 200_000),
    "surrogate": raw_request("POST /api/v1/dead-letters/purge", body=b'{"ids":["\\ud800"]}'),
    "limit": raw_request("GET /api/v1/dead-letters?limit=" + "9" * 5000),
    "nul": raw_request("GET /api/v1/dead-letters/%00%0d%0aX:y"),
    "traversal": raw_request("GET /api/v1/dead-letters/..%2f..%2fetc%2fpasswd"),
    "large": raw_request("POST /api/v1/dead-letters/purge", body=b" " * 3_000_000),
    "gzip": raw_request(
        "POST /api/v1/dead-letters/purge", b"Content-Encoding: gzip", body=b"rubbish"
    ),
}


@pytest.mark.parametrize("token", [None, "s3cret-ä"])
async def test_no_request_is_an_internal_error(
    token: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(http_token=token) as (_service, client):
        port = int(client.base.rpartition(":")[2])
        for name, request in HOSTILE.items():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read(100_000)
            writer.close()
            status = answer.split(b" ")[1]
            assert status[:1] in b"24", (name, answer[:200])
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_page_that_fails_is_an_answer_without_a_word_of_why() -> None:
    async def fail(_request: web.Request) -> web.StreamResponse:
        raise RuntimeError("internals")

    async with running(worker(nothing), virtual_time=False) as service:
        service.service.register_http_handler("/broken", fail)
        port = await service.service.start_web_ui(0)
        async with ClientSession() as session:
            status, body, headers = await Client(session, port).ask("GET", "/broken")
    assert status == 500
    assert "internals" not in body["detail"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers


async def test_half_a_request_ends_and_a_slow_page_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[bool] = []

    async def slow(_request: web.Request) -> web.StreamResponse:
        while not closed:  # until the other connection was closed
            await asyncio.sleep(0.01)
        return web.Response(text="done")

    monkeypatch.setattr(Deadlines.__init__, "__defaults__", (0.2,))
    async with running(worker(nothing), virtual_time=False) as service:
        service.service.register_http_handler("/slow", slow)
        port = await service.service.start_web_ui(0)
        async with ClientSession() as session:
            answer = asyncio.create_task(Client(session, port).ask("GET", "/slow"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A")
            assert await reader.read() == b""
            closed.append(True)
            writer.close()
            assert (await answer)[0] == 200


def test_any_origin_needs_a_token() -> None:
    with pytest.raises(ConfigError, match="http_cors"):
        config(http_cors=("*",))
    config(http_cors=("*",), http_token="x")
    config(http_cors=("https://ops.example",))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_a_port_that_is_taken_stops_the_start() -> None:
    """Trap B23: a bind failure that was only logged."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = Service(config(http_port=taken.getsockname()[1]))
        service.register(worker(nothing))
        with pytest.raises(ConfigError, match="cannot be served"):
            await service.start()


async def test_configured_ports_are_served_and_closed_with_the_service() -> None:
    pages, metrics = free_port(), free_port()
    service = Service(config(http_port=pages, metrics_port=metrics))
    service.register(worker(nothing))
    async with ClientSession() as session:
        async with service:
            assert await Client(session, pages).get("/readyz")
            assert "protoflow_" in await Client(session, metrics).get("/metrics")
            assert (await Client(session, pages).ask("GET", "/metrics"))[0] == 404
            assert (await Client(session, metrics).ask("GET", "/api/handlers"))[0] == 404
        for port in (pages, metrics):
            with pytest.raises(OSError, match=r"refused|Connect"):
                await asyncio.open_connection("127.0.0.1", port)


async def test_a_socket_is_served_to_its_user_alone(tmp_path: Path) -> None:
    socket_path = tmp_path / "pages.sock"
    service = Service(config(http_socket=str(socket_path)))
    service.register(worker(nothing))
    async with service, ClientSession(connector=UnixConnector(str(socket_path))) as session:
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        async with session.get("http://localhost/api/v1/handlers") as answer:
            assert (await answer.json())["handlers"][0]["name"] == NAME
    service = Service(config(http_socket=str(tmp_path / "no" / "pages.sock")))
    with pytest.raises(ConfigError, match=r"http_socket: .* cannot be served"):
        await service.start()


async def test_pages_of_ones_own_are_under_the_same_token() -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"hello": request.match_info["name"]})

    service = Service(config(http_token="x", http_read_token="y"))
    service.register_http_handler("/hello/{name}", hello)
    service.register_http_handler("/hello/{name}", hello, method="POST")
    with pytest.raises(RegistrationError, match="taken"):
        service.register_http_handler("/hello/{name}", hello)
    service.register(worker(nothing))
    async with service, ClientSession() as session:
        client = Client(session, await service.start_web_ui(0))
        headers = {"Authorization": "Bearer x"}
        assert await client.get("/hello/bob", headers=headers) == {"hello": "bob"}
        assert (await client.ask("GET", "/hello/bob"))[0] == 401
        reading = {"Authorization": "Bearer y"}
        assert await client.get("/hello/bob", headers=reading) == {"hello": "bob"}
        assert (await client.ask("POST", "/hello/bob", headers=reading))[0] == 403
        assert (await client.ask("POST", "/hello/bob", headers=headers))[0] == 200
        with pytest.raises(RegistrationError, match="register before start"):
            service.register_http_handler("/late", hello)


def test_mistakes_in_settings_are_reported_and_the_token_is_not() -> None:
    with pytest.raises(ConfigError, match="metrics_port: must be 0 to 65535"):
        Config(environ={}, metrics_port=70000)
    for name in ("http_token", "http_read_token"):
        with pytest.raises(ConfigError, match=f"{name}: has blanks"):
            config(**{name: "hunter2\n"})
    with pytest.raises(ConfigError, match="http_read_token: is the same as http_token") as raised:
        config(http_token="hunter2", http_read_token="hunter2")
    assert "hunter2" not in str(raised.value)
    settings = Config(environ={"PROTOFLOW_HTTP_TOKEN": "hunter2", "PROTOFLOW_HTTP_CORS": "a,b"})
    assert settings.http_cors == ("a", "b")
    assert settings.http_token is not None
    assert settings.http_token.reveal() == "hunter2"
    assert "hunter2" not in f"{settings} {settings!r} {settings.describe()}"

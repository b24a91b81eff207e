"""Several workers behind one HTTP API: sums, actions on all, and workers that are not there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, DummyCookieJar
from protoflow import Service
from protoflow.web.joining import JOIN
from protoflow.web.request import Role
from protoflow.web.response import EVENTS
from protoflow.web.routes import ROUTES
from protoflow.web.workers.server import served

from tests.middleware.harness import NAME, config, put, running, worker
from tests.web.clients import READ_TOKEN, TOKEN, TOKENS, Aiohttp, bearer, broken
from tests.web.test_routes import BODIES, of_type, path_of, validate
from tests.web.test_web import free_port


@asynccontextmanager
async def workers(
    folder: Path, count: int = 2, missing: int = 0, **settings: Any
) -> AsyncIterator[tuple[list[Any], Aiohttp]]:
    """Services that serve on sockets, and a client of the parent of them and of missing ones."""
    sockets = [str(folder / f"{number}.sock") for number in range(count + missing)]
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                running(worker(broken), virtual_time=False, http_socket=path, **settings)
            )
            for path in sockets[:count]
        ]
        port = await stack.enter_async_context(served(config(**settings), sockets))
        session = await stack.enter_async_context(ClientSession(cookie_jar=DummyCookieJar()))
        yield services, Aiohttp(session, port)


async def test_every_route_answers_by_role(tmp_path: Path) -> None:
    async with workers(tmp_path, http_publish=True, **TOKENS) as (services, client):
        (id,) = await put(services[0], "bad")
        await put(services[1], "good")
        roles = {None: Role.NONE, READ_TOKEN: Role.READ, TOKEN: Role.OPERATE}
        for route in sorted(ROUTES, key=lambda route: "drain" in route.path):
            path = path_of(route, id)
            for token, role in roles.items():
                if route.content_type == EVENTS and role >= route.role:
                    continue
                answer = await client.ask(
                    route.method, path, headers=bearer(token), body=BODIES.get(route.body, b"")
                )
                case = f"{route.method} {path} as {token}: {answer.text}"
                if role < route.role:
                    assert answer.status == (401 if role is Role.NONE else 403), case
                    continue
                assert answer.status == route.status, case
                assert of_type(route, answer.type), case
                if answer.type == "application/json":
                    validate(answer.json, route.schema)


async def test_counters_are_summed_and_actions_reach_all(tmp_path: Path) -> None:
    async with workers(tmp_path) as (services, client):
        await put(services[0], "good", "bad")
        await put(services[1], "good")
        (row,) = (await client.ask("GET", "/api/v1/handlers")).json["handlers"]
        assert (row["counters"]["handled"], row["counters"]["dead_lettered"]) == (2, 1)
        assert (row["runs"], row["histogram"][-1]) == (5, {"seconds": None, "runs": 5})
        assert row["latency_seconds"]["average"] == pytest.approx(row["run_seconds"] / 5)
        assert row["policy"]["retry"]["max_attempts"] == 3
        (info,) = (await client.ask("GET", "/api/handlers")).json
        assert (info["stats"]["messages_processed"], info["stats"]["attempts"]) == (2, 5)
        assert info["stats"]["throughput"]["window_seconds"] == 60
        metrics = (await client.ask("GET", "/metrics")).text
        line = next(
            line for line in metrics.splitlines()
            if line.startswith("protoflow_messages_total") and 'outcome="handled"' in line
        )  # fmt: skip
        assert line.endswith(" 2.0")
        paused = (await client.ask("POST", f"/api/v1/handlers/{NAME}/pause")).json["processes"]
        assert [one["subscriptions"][0]["state"] for one in paused] == ["paused", "paused"]
        services[1].service.resume(NAME)
        (row,) = (await client.ask("GET", "/api/v1/handlers")).json["handlers"]
        assert row["state"] == "mixed"
        refused = await client.ask("POST", "/api/v1/handlers/none/pause")
        assert (refused.status, refused.type) == (404, "application/problem+json")
        assert (await client.ask("GET", "/nowhere")).status == 404


async def test_ready_is_all_ready(tmp_path: Path) -> None:
    async with workers(tmp_path) as (services, client):
        assert (await client.ask("GET", "/readyz")).json == {"status": "ok", "problems": {}}
        services[1].service.subscriptions[0].pause_for("no dead letters", True)
        answer = await client.ask("GET", "/readyz")
        assert (answer.status, answer.json["problems"]) == (
            503, {"worker 2: work/workers": "no dead letters"},
        )  # fmt: skip
        assert (await client.ask("GET", "/healthz")).status == 200
    async with workers(tmp_path, missing=1, **TOKENS) as (services, client):
        assert (await client.ask("GET", "/readyz")).json == {"status": "failing"}
        answer = await client.ask("GET", "/readyz", headers=bearer(READ_TOKEN))
        assert answer.json["problems"] == {"worker 3": "does not answer"}
        assert (await client.ask("GET", "/healthz")).status == 200


async def test_a_worker_that_is_not_reached(tmp_path: Path) -> None:
    async with workers(tmp_path, missing=1) as (_services, client):
        answer = await client.ask("POST", "/api/v1/pause")
        assert (answer.status, answer.type) == (503, "application/problem+json")
        assert "worker 3 was not reached" in answer.json["detail"]
        assert len(answer.json["processes"]) == 2
        assert len((await client.ask("GET", "/api/v1/processes")).json["processes"]) == 2
    async with workers(tmp_path, count=0, missing=2) as (_services, client):
        for method, path in (("GET", "/api/v1/lag"), ("POST", "/api/v1/pause")):
            answer = await client.ask(method, path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (await client.ask("GET", "/readyz")).status == 503


async def test_metrics_have_a_port_of_their_own(tmp_path: Path) -> None:
    port = free_port()
    socket = str(tmp_path / "1.sock")
    service = Service(config(http_socket=socket))
    service.register(worker(broken))
    async with (
        service,
        served(config(metrics_port=port), [socket]) as pages,
        ClientSession() as session,
    ):
        assert (await Aiohttp(session, pages).ask("GET", "/metrics")).status == 404
        assert (await Aiohttp(session, port).ask("GET", "/metrics")).status == 200
        assert (await Aiohttp(session, port).ask("GET", "/api/handlers")).status == 404


def test_what_is_of_the_broker_is_not_summed() -> None:
    topic = {
        "topic": "dead", "waiting": 3, "received": 1, "replayed": 0, "purged": 0,
        "oldest_at": None, "newest_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    later = topic | {"waiting": 4, "received": 2, "oldest_at": "2026-01-01T00:00:01Z"}
    assert JOIN["topics"]([{"topics": [topic]}, {"topics": [later]}]) == {
        "topics": [later | {"received": 3}]
    }
    assert {route.across for route in ROUTES} <= {*JOIN, "any", "probe", "metrics"}
    json.dumps(JOIN["all"]([{"processes": []}]))

"""Every route through both adapters: who may ask, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Service
from protoflow.message import Message
from protoflow.output import Output
from protoflow.web.request import Role
from protoflow.web.response import EVENTS, JSON, NDJSON, PROBLEM
from protoflow.web.route import Route
from protoflow.web.routes import ROUTES
from protoflow.web.schemas import SCHEMAS

from tests.cli import schemas
from tests.middleware.harness import NAME, TO_WORK, config, nothing, put, worker
from tests.web.clients import (
    ADAPTERS,
    DEAD,
    READ_TOKEN,
    TOKEN,
    TOKENS,
    Client,
    bearer,
    broken,
    client_of,
    served,
)

#: A body that each route takes which takes one.
BODIES = {
    "Replay": b'{"all": true, "dry_run": true}',
    "Change": b'{"all": true, "dry_run": true}',
    "Login": json.dumps({"token": TOKEN}).encode(),
    "Publication": b'{"type": "google.protobuf.StringValue", "message": "good"}',
}


def path_of(route: Route, id: str) -> str:
    """Returns a path of a route that has parameters."""
    known = route.path.replace("/assets/{name}", "/assets/app.js")
    return known.replace("{name}", NAME).replace("{id}", id)


def is_answered(route: Route, role: Role) -> bool:
    """Whether a client of that role gets an answer that ends."""
    return role >= route.role and route.content_type != EVENTS


def of_type(route: Route, type: str) -> bool:
    """Whether a response has the content type of a route."""
    return route.content_type in (type, "*/*")


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def validate(value: Any, schema: str) -> None:
    """Checks a value against a schema of the API."""
    document = {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": SCHEMAS}}
    jsonschema.Draft202012Validator(document).validate(value)


async def get(client: Client, path: str, **given: Any) -> Any:
    answer = await client.ask("GET", path, **given)
    assert answer.status == 200, answer.text
    return answer.json


async def post(client: Client, path: str, body: Any) -> tuple[int, Any]:
    answer = await client.ask("POST", path, body=json.dumps(body).encode())
    return answer.status, answer.json


async def test_every_route_answers_by_role_and_keeps_to_its_schema(adapter: str) -> None:
    roles = {None: Role.NONE, "wrong": Role.NONE, READ_TOKEN: Role.READ, TOKEN: Role.OPERATE}
    async with served(adapter, http_publish=True, **TOKENS) as (service, client):
        (id,) = await put(service, "bad")
        # What drains comes last: nothing is read from a drained subscription.
        for route in sorted(ROUTES, key=lambda route: "drain" in route.path):
            path = path_of(route, id)
            for token, role in roles.items():
                if route.content_type == EVENTS and role >= route.role:
                    continue  # it does not end: tests/web/test_live.py
                answer = await client.ask(
                    route.method, path, headers=bearer(token), body=BODIES.get(route.body, b"")
                )
                case = f"{name_of(route)} as {token}"
                assert answer.headers["cache-control"] == "no-store", case
                assert answer.headers["x-content-type-options"] == "nosniff", case
                assert "server" not in answer.headers, case
                if is_answered(route, role):
                    assert answer.status == route.status, (case, answer.text)
                    assert of_type(route, answer.type), case
                    if answer.type == NDJSON:
                        for line in answer.text.splitlines():
                            validate(json.loads(line), route.schema)
                    elif answer.type == JSON:
                        validate(answer.json, route.schema)
                    continue
                assert answer.status == (401 if role is Role.NONE else 403), case
                assert answer.type == PROBLEM, case
                validate(answer.json, "Problem")
                assert ("www-authenticate" in answer.headers) == (role is Role.NONE), case


async def test_without_tokens_this_machine_operates(adapter: str) -> None:
    async with served(adapter, http_publish=True) as (_service, client):
        for route in ROUTES:
            if "{" not in route.path and is_answered(route, Role.OPERATE):
                answer = await client.ask(
                    route.method, route.path, body=BODIES.get(route.body, b"")
                )
                # There is no token to sign in with.
                expected = 409 if route.path.endswith("/login") else route.status
                assert answer.status == expected, (name_of(route), answer.text)


async def test_with_the_reading_token_alone_nobody_operates(adapter: str) -> None:
    async with served(adapter, http_read_token=READ_TOKEN) as (_service, client):
        answers = [
            (await client.ask(method, path, headers=bearer(token))).status
            for method, path, token in (
                ("GET", "/api/v1/handlers", None),
                ("GET", "/api/v1/handlers", READ_TOKEN),
                ("POST", "/api/v1/pause", READ_TOKEN),
            )
        ]
        assert answers == [401, 200, 403]


@pytest.mark.parametrize("header", ["Basic read", "Bearer", "read-ö", "Bearer read-ö2", "Bearer  "])
async def test_what_is_no_token(adapter: str, header: str) -> None:
    async with served(adapter, **TOKENS) as (_service, client):
        headers = {"Authorization": header}
        assert (await client.ask("GET", "/api/v1/lag", headers=headers)).status == 401
        # Nor does it learn which pages there are.
        assert (await client.ask("GET", "/nowhere", headers=headers)).status == 401


def dead(path: str = "") -> str:
    return f"/api/v1/dead-letters{path}"


WRONG = [
    ("GET", "/nowhere", None, 404),
    ("GET", "/api/v1/nowhere", None, 404),
    ("GET", "/api/v1/handlers/", None, 404),
    ("GET", "/api/v1/handlers/none", None, 404),
    ("POST", "/api/v1/handlers/none/pause", None, 404),
    ("DELETE", "/api/v1/handlers", None, 405),
    ("GET", "/api/v1/pause", None, 405),
    ("GET", dead("/none"), None, 404),
    ("GET", dead("?topic=orders.placed"), None, 404),
    ("GET", dead("?limit=many"), None, 400),
    ("GET", dead("?limit=0"), None, 400),
    ("GET", dead("?limit=" + "9" * 5000), None, 400),
    ("GET", dead("?limit=1&limit=2"), None, 400),
    ("GET", dead("?since=yesterday"), None, 400),
    ("GET", dead("?until=nan"), None, 400),
    ("GET", dead("?eror=x"), None, 400),
    ("GET", dead("?error=%ff"), None, 400),
    ("GET", dead("?cursor=nowhere"), None, 400),
    ("GET", dead("?cursor=W10"), None, 400),
    ("GET", dead("?cursor=WyJvdGhlciIsICIxIl0"), None, 400),  # ["other", "1"]
    ("GET", dead("?" + "&".join(f"k{n}=v" for n in range(60))), None, 400),
    ("GET", dead("/summary?limit=5"), None, 400),
    ("GET", dead("/x?payload=maybe"), None, 400),
    ("GET", dead("/x?payload=true"), None, 403),
    ("GET", dead("/export?payload=true"), None, 403),
    ("POST", dead("/purge"), b"", 400),
    ("POST", dead("/purge"), b"{}", 400),
    ("POST", dead("/purge"), b'{"all": false}', 400),
    ("POST", dead("/purge"), b'{"filter": {}}', 400),
    ("POST", dead("/purge"), b'{"all": "yes"}', 400),
    ("POST", dead("/purge"), b'{"all": true, "ids": ["x"]}', 400),
    ("POST", dead("/purge"), b'{"all": true, "filter": {"key": "k"}}', 400),
    ("POST", dead("/purge"), b'{"id": "x"}', 400),
    ("POST", dead("/purge"), b'{"ids": "x"}', 400),
    ("POST", dead("/purge"), b'{"ids": []}', 400),
    ("POST", dead("/purge"), b'{"ids": [1]}', 400),
    ("POST", dead("/purge"), b'{"ids": ["none"]}', 404),
    ("POST", dead("/purge"), b'{"filter": {"eror": "x"}}', 400),
    ("POST", dead("/purge"), b'{"filter": {"key": 1}}', 400),
    ("POST", dead("/purge"), b'{"filter": {"since": true}}', 400),
    ("POST", dead("/purge"), b'{"filter": {"topic": "orders.placed"}}', 404),
    ("POST", dead("/purge"), b'{"to_origin": true, "all": true}', 400),
    ("POST", dead("/purge?topic=x"), b'{"all": true}', 400),
    ("POST", dead("/replay"), b"", 400),
    ("POST", dead("/replay"), b'{"all": true, "to_origin": "no"}', 400),
    ("POST", dead("/replay"), b"not json", 400),
    ("POST", dead("/replay"), b"[]", 400),
    ("POST", dead("/replay"), b"\xff\xfe", 400),
    ("POST", dead("/replay"), b"[" * 200_000, 400),
    ("POST", dead("/replay"), b'{"ids":["\\ud800"]}', 400),
    ("POST", dead("/replay"), b" " * 1_100_000, 413),
    *(
        (route.method, route.path.replace("{name}", NAME) + "?surprise=1", b"", 400)
        for route in ROUTES
        if route.path.startswith("/api") and "{id}" not in route.path
    ),
]


async def test_wrong_questions_are_problems(adapter: str, caplog: pytest.LogCaptureFixture) -> None:
    async with served(adapter) as (service, client):
        await put(service, "bad")
        for method, path, body, expected in WRONG:
            answer = await client.ask(method, path, body=body or b"")
            case = f"{method} {path[:80]} {(body or b'')[:40]!r}: {answer.text[:300]}"
            assert answer.status == expected, case
            assert answer.type == PROBLEM, case
            validate(answer.json, "Problem")
            assert answer.json["status"] == expected
        assert (await get(client, dead()))["dead_letters"], "nothing was purged"
    assert not [record for record in caplog.records if record.name == "protoflow.web"]


async def test_handlers_with_statistics(adapter: str) -> None:
    async with served(adapter) as (service, client):
        await put(service, "good", "bad")
        (row,) = (await get(client, "/api/v1/handlers"))["handlers"]
        again = await get(client, f"/api/v1/handlers/{NAME}")
        assert (again["name"], again["counters"]) == (row["name"], row["counters"])
        assert (row["name"], row["state"], row["subscription"]) == (NAME, "running", "work/workers")
        assert (row["counters"]["handled"], row["counters"]["dead_lettered"]) == (1, 1)
        assert row["runs"] == 4
        assert (row["errors"]["other"], row["last_error"]) == (3, "ValueError: no good: ***")
        assert row["policy"]["retry"]["max_attempts"] == 3
        assert row["histogram"][-1] == {"seconds": None, "runs": 4}
        (info,) = await get(client, "/api/handlers")
        assert info["stats"]["messages_processed"] == 1


async def test_pause_resume_and_drain(adapter: str) -> None:
    async with served(adapter) as (service, client):
        for name in (NAME, quote("work/workers", safe="")):
            status, answer = await post(client, f"/api/v1/handlers/{name}/pause", None)
            (process,) = answer["processes"]
            (subscription,) = process["subscriptions"]
            assert (status, subscription["state"]) == (200, "paused")
            assert subscription["handlers"] == [NAME]
            assert service.service.subscriptions[0].paused
            status, answer = await post(client, "/api/v1/resume", None)
            assert answer["processes"][0]["subscriptions"][0]["state"] == "running"
        await put(service, "good")
        status, answer = await post(client, f"/api/v1/handlers/{NAME}/drain", None)
        assert status == 202
        await service.service.subscriptions[0].stop(1)
        (process,) = (await get(client, "/api/v1/processes"))["processes"]
        assert process["subscriptions"][0]["state"] == "drained"
        assert not process["ready"]
        assert "drained" in process["problems"]["work/workers"]
        for verb in ("pause", "resume"):
            status, answer = await post(client, f"/api/v1/{verb}", None)
            assert (status, "drained" in answer["detail"]) == (409, True)
        assert (await post(client, "/api/v1/drain", None))[0] == 202


async def test_lag_topology_contract_and_settings(adapter: str) -> None:
    async with served(adapter, do=nothing, **TOKENS) as (service, client):
        headers = bearer(READ_TOKEN)
        service.service.pause(NAME)
        await service.service.publish_outputs(TO_WORK, [Output(StringValue(value="x"))])
        (row,) = (await get(client, "/api/v1/lag", headers=headers))["lag"]
        assert (row["topic"], row["group"], row["waiting"]) == ("work", "workers", 1)
        graph = await get(client, "/api/v1/topology", headers=headers)
        assert {node["id"] for node in graph["nodes"]} == {
            f"handler:{NAME}", "topic:work", f"dead_letters:{DEAD}",
        }  # fmt: skip
        assert {"kind": "consumes", "from": "topic:work", "to": f"handler:{NAME}"} in graph["edges"]
        contract = await get(client, "/api/v1/contract", headers=headers)
        (message,) = contract["messages"]
        assert message["type"] == "google.protobuf.StringValue"
        assert message["fields"][0]["sensitive"] is True
        assert contract["operations"][0]["name"] == NAME
        settings = await get(client, "/api/v1/settings", headers=headers)
        shown = {row["name"]: row for row in settings["settings"]}
        assert (shown["http_token"]["value"], shown["http_token"]["origin"]) == ("set", "argument")
        assert settings["settings"][0]["origin"] != "built in"
        assert TOKEN not in json.dumps(settings, ensure_ascii=False)


async def test_dead_letters_are_paged_filtered_and_counted(adapter: str) -> None:
    async with served(adapter) as (service, client):
        ids = await put(service, "bad card 4111", "bad 2", "bad 3")
        first = await get(client, dead("?limit=2"))
        rest = await get(client, dead(f"?limit=2&cursor={first['next_cursor']}"))
        rows = first["dead_letters"] + rest["dead_letters"]
        assert [row["id"] for row in rows] == ids
        assert rest["next_cursor"] is None
        assert "4111" not in json.dumps(rows)
        assert rows[0]["error_message"] == "no good: ***"
        for query, expected in (
            (f"error=ValueError&handler={NAME}&group=workers&error_class=exhausted", ids),
            (f"type=google.protobuf.StringValue&since=2020-01-01T00:00:00Z&topic={DEAD}", ids),
            ("error=KeyError", []),
            ("key=k", []),
            ("handler=none", []),
            ("until=86400", []),
            ("since=2020-01-01", ids),
        ):
            page = await get(client, dead(f"?{query}"))
            assert [row["id"] for row in page["dead_letters"]] == expected, query
        summary = await get(client, dead("/summary"))
        assert (summary["matched"], summary["complete"]) == (3, True)
        assert summary["groups"][0]["count"] == 3
        lines = (await client.ask("GET", dead("/export?error=ValueError"))).text.splitlines()
        assert [json.loads(line)["id"] for line in lines] == ids
        (topic,) = (await get(client, "/api/v1/dead-letter-topics"))["topics"]
        assert (topic["topic"], topic["waiting"]) == (DEAD, 3)


async def test_dead_letters_are_replayed_and_purged(adapter: str) -> None:
    async with served(adapter) as (service, client):
        ids = await put(service, "bad 1", "bad 2", "bad 3", "bad 4")
        preview = {"filter": {"error": "ValueError"}, "dry_run": True}
        status, answer = await post(client, dead("/purge"), preview)
        assert (status, answer["matched"], answer["done"]) == (200, 4, 0)
        assert [row["id"] for row in answer["samples"]] == ids
        none = {"matched": 0, "done": 0, "failed": 0}
        for action in ("/purge", "/replay"):
            status, answer = await post(client, dead(action), {"filter": {"error": "KeyError"}})
            assert (status, answer) == (200, none)
        done = {"matched": 1, "done": 1, "failed": 0}
        assert await post(client, dead("/purge"), {"ids": ids[:1]}) == (200, done)
        body = {"ids": ids[1:2], "filter": {"handler": NAME}, "to_origin": True}
        assert await post(client, dead("/replay"), body) == (200, done)
        await service.settled()
        assert await post(client, dead("/replay"), {"all": True}) == (
            200, {"matched": 3, "done": 3, "failed": 0},
        )  # fmt: skip
        await service.settled()
        assert (await post(client, dead("/purge"), {"all": True}))[1]["done"] == 3
        counters = service.service.counters.dead_letters.topics[DEAD]
        assert (counters.replayed, counters.purged) == (4, 4)


async def test_what_could_not_be_replayed_is_in_the_problem(adapter: str) -> None:
    async with served(adapter) as (service, client):
        await put(service, "bad 1")
        forged = Message(id="a/b", topic=DEAD, payload=b"", metadata={"pf_group": "others"})
        assert await service.service.transport.submit([forged]) == [None]
        # An id may have slashes.
        assert (await get(client, dead("/a%2Fb")))["id"] == "a/b"
        status, answer = await post(client, dead("/replay"), {"all": True})
        assert (status, answer["matched"], answer["done"], answer["failed"]) == (409, 2, 1, 1)
        assert [*answer["left"]] == ["a/b"]
        assert "it names no original topic" in answer["detail"]


async def test_payloads_are_shown_where_that_is_set(adapter: str) -> None:
    async with served(adapter, http_payloads=True) as (service, client):
        (id,) = await put(service, "bad card 4111")
        assert "payload" not in await get(client, dead(f"/{id}"))
        shown = await get(client, dead(f"/{id}?payload=true&topic={DEAD}"))
        assert "***" in json.dumps(shown["payload"])
        exported = (await client.ask("GET", dead("/export?payload=true"))).text
        assert "***" in exported
        assert "4111" not in exported + json.dumps(shown)


async def test_one_message_with_its_timeline_and_the_places_searched(
    adapter: str, tmp_path: Path
) -> None:
    url, journal = f"sqlite:///{tmp_path / 'queue.db'}", str(tmp_path / "journal.db")
    service = Service(config(transport=url, journal=journal))
    service.register(worker(broken))
    async with service, client_of(service, adapter) as client:
        (bad,) = await service.publish_outputs(TO_WORK, [Output(StringValue(value="bad"))])
        async with asyncio.timeout(30):  # the journal is written by a thread
            found: Any = {"timeline": []}
            while not found["timeline"] or found["timeline"][-1]["source"] != "journal, broker":
                await asyncio.sleep(0.05)
                found = await get(client, f"/api/v1/messages/{bad}")
        validate(found, "Message")
        assert [(row["event"], row["attempt"]) for row in found["timeline"]] == [
            ("published", None), ("failed", 1), ("failed", 2), ("failed", 3), ("dead-lettered", 3),
        ]  # fmt: skip
        assert found["groups"] == [
            {"topic": "work", "group": "workers", "state": f"dead letter in {DEAD}"}
        ]
        assert found["dead_letters"][0]["error_type"] == "ValueError"
        assert found["searched"][0].startswith(f"journal {journal}, from")
        assert found["searched"][1:] == ["rows of work", f"dead letters in {DEAD}"]
        (left,) = found["not_searched"]
        assert left.startswith("successful runs")
        # But for the dead letters and the key it is what `protoflow why --json` prints.
        del found["dead_letters"], found["key"]
        schemas.validate(["why"], json.dumps(found))
        missing = await get(client, "/api/v1/messages/none?since=2026-01-31T12:00:00Z")
        validate(missing, "Message")
        assert (missing["known"], missing["timeline"], missing["dead_letters"]) == (False, [], [])
        assert (await client.ask("GET", "/api/v1/messages/none?since=soon")).status == 400


async def test_places_of_a_message_that_cannot_be_searched(adapter: str) -> None:
    async with served(adapter) as (service, client):
        (bad,) = await put(service, "bad")
        found = await get(client, f"/api/v1/messages/{bad}")
        assert found["known"] is True
        assert found["searched"] == [f"dead letters in {DEAD}"]
        assert [place.partition(":")[0] for place in found["not_searched"]] == ["journal", "work"]


async def test_probes(adapter: str) -> None:
    async with served(adapter, **TOKENS) as (service, client):
        headers = bearer(READ_TOKEN)
        assert await get(client, "/healthz") == {"status": "ok"}
        assert await get(client, "/readyz", headers=headers) == {"status": "ok", "problems": {}}
        service.service.subscriptions[0].pause_for("dead letters cannot be published", True)
        answer = await client.ask("GET", "/readyz", headers=headers)
        assert answer.status == 503
        assert "dead letters" in str(answer.json["problems"])
        assert (await client.ask("GET", "/readyz")).json == {"status": "failing"}
        assert (await client.ask("GET", "/healthz")).status == 200
        service.service._lifetime.crashed(RuntimeError("gone"))
        assert (await client.ask("GET", "/healthz")).status == 503


async def test_a_head_request_has_no_body(adapter: str) -> None:
    async with served(adapter) as (service, client):
        await put(service, "bad")
        # More streams than are answered at once: each is closed.
        for path in ("/api/v1/handlers", *[dead("/export")] * 70):
            answer = await client.ask("HEAD", path)
            assert (answer.status, answer.text) == (200, "")


async def test_browsers_of_other_origins_and_names_are_refused(adapter: str) -> None:
    async with served(adapter, http_cors="https://ops.example") as (_service, client):
        host = {"Host": "127.0.0.1:1"}
        for origin, expected in (
            ("https://evil.example", 403),
            ("http://[", 403),
            ("null", 403),
            ("https://ops.example", 200),
            ("http://127.0.0.1:1", 200),
        ):
            answer = await client.ask(
                "POST", dead("/purge"), headers={"Origin": origin} | host, body=b'{"all": true}'
            )
            assert answer.status == expected, origin
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if origin == "https://ops.example" else None)
        answer = await client.ask(
            "OPTIONS", dead("/purge"), headers={"Origin": "https://ops.example"}
        )
        assert answer.status == 204
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
        # DNS rebinding: a foreign name that resolves to this machine.
        for name, expected in (("evil.example", 403), ("[", 403), ("localhost:1", 200)):
            answer = await client.ask("GET", "/api/v1/handlers", headers={"Host": name})
            assert answer.status == expected, name


async def test_the_contract_is_an_asyncapi_document(adapter: str) -> None:
    async with served(adapter) as (_, client):
        document = await get(client, "/api/asyncapi")
    assert document["asyncapi"] == "3.1.0"
    assert document["info"]["x-protoflow-transport"] == "memory"

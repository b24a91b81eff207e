"""Sessions of browsers: cookies instead of tokens, and what other sites cannot do with them."""

from __future__ import annotations

import json
import re
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from protoflow.web.login_limit import LoginLimit
from protoflow.web.request import Role
from protoflow.web.sessions import Sessions

from tests.middleware.harness import config
from tests.web.clients import ADAPTERS, READ_TOKEN, TOKEN, TOKENS, Answer, Client, served
from tests.web.test_workers import workers

PAUSE = "/api/v1/pause"
OWN = {"x-protoflow": "dashboard"}


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


async def login(client: Client, token: Any, **headers: str) -> Answer:
    body = json.dumps({"token": token}).encode()
    return await client.ask("POST", "/api/v1/login", body=body, headers=headers)


def cookie_of(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


async def test_a_session_may_what_its_token_may(adapter: str) -> None:
    async with served(adapter, **TOKENS) as (_service, client):
        for token, role, paused in ((TOKEN, "operate", 200), (READ_TOKEN, "read", 403)):
            answer = await login(client, token)
            assert answer.json["role"] == role
            cookie = {"cookie": f"other=1; {cookie_of(answer)}"}
            found = await client.ask("GET", "/api/v1/session", headers=cookie)
            assert found.json["role"] == role
            assert (await client.ask("GET", "/api/v1/handlers", headers=cookie)).status == 200
            assert (await client.ask("POST", PAUSE, headers=cookie | OWN)).status == paused


async def test_the_cookie_is_for_this_site_and_no_script(adapter: str) -> None:
    async with served(adapter, **TOKENS) as (_service, client):
        plain = (await login(client, TOKEN)).headers["set-cookie"]
        form = r"protoflow-[0-9a-f]{8}=operate\.\d+\.[0-9a-f]{64}; Max-Age=43200; HttpOnly; "
        assert re.fullmatch(form + "SameSite=Strict", plain)
        assert TOKEN not in plain
        secure = await login(client, TOKEN, **{"x-forwarded-proto": "https"})
        assert secure.headers["set-cookie"].endswith("; Secure")
        cookie = {"cookie": cookie_of(secure)} | OWN
        ended = await client.ask("POST", "/api/v1/logout", headers=cookie)
        assert "Max-Age=0" in ended.headers["set-cookie"]
        # A stranger learns no name: it is made of a token, and tokens could be tried on it.
        stranger = await client.ask("POST", "/api/v1/logout")
        assert "set-cookie" not in stranger.headers
        assert ended.json["role"] == "none"


async def test_other_sites_cannot_use_a_session(adapter: str) -> None:
    async with served(adapter, http_cors=("https://friend.example",), **TOKENS) as (_s, client):
        cookie = {"cookie": cookie_of(await login(client, TOKEN))}
        # A form cannot set the header.
        assert (await client.ask("POST", PAUSE, headers=cookie)).status == 403
        foreign = cookie | OWN | {"origin": "https://evil.example"}
        assert (await client.ask("POST", PAUSE, headers=foreign)).status == 403
        # An origin that may read with a token does not get the session's rights.
        friend = cookie | OWN | {"origin": "https://friend.example"}
        assert (await client.ask("POST", PAUSE, headers=friend)).status == 401


async def test_what_is_no_session(adapter: str) -> None:
    async with served(adapter, **TOKENS) as (_service, client):
        name, _, value = cookie_of(await login(client, READ_TOKEN)).partition("=")
        role, expires, signature = value.split(".")
        for forged in (
            f"operate.{expires}.{signature}", f"{role}.{int(expires) + 1}.{signature}",
            f"{role}.{expires}.{'0' * 64}", f"{role}.{expires}", f"{role}.-1.{signature}",
            f"{role}.{'9' * 400}.{signature}", "", "...",
        ):  # fmt: skip
            headers = {"cookie": f"{name}={forged}"}
            assert (await client.ask("GET", "/api/v1/handlers", headers=headers)).status == 401


async def test_five_attempts_a_minute(adapter: str) -> None:
    async with served(adapter, **TOKENS) as (_service, client):
        answers = [(await login(client, "wrong")).status for _ in range(6)]
        assert answers == [401] * 5 + [429]
        # Neither does the right one help now.
        assert (await login(client, TOKEN)).status == 429
        assert (await login(client, 1)).status == 400


async def test_each_client_has_its_own_attempts(adapter: str) -> None:
    async with served(adapter, **TOKENS, http_proxies=("127.0.0.0/8", "10.0.0.7")) as (_, client):
        # What the client says of itself stands before what the proxies say.
        chain = "198.51.100.9, 203.0.113.{}, 10.0.0.7"
        for number in (1, 2):
            named = {"x-forwarded-for": chain.format(number)}
            answers = [(await login(client, "wrong", **named)).status for _ in range(6)]
            assert answers == [401] * 5 + [429]
        mine = {"x-forwarded-for": chain.format(3)}
        assert (await login(client, TOKEN, **mine)).status == 200
    async with served(adapter, **TOKENS) as (_, client):
        # No proxy is trusted: the header is only a claim.
        for number in range(6):
            answer = await login(client, "wrong", **{"x-forwarded-for": f"203.0.113.{number}"})
        assert answer.status == 429


async def test_clients_of_a_gateway_have_their_own_attempts(tmp_path: Path) -> None:
    async with workers(tmp_path, **TOKENS, http_proxies=("127.0.0.1",)) as (_services, client):
        for number in (1, 2):
            named = {"x-forwarded-for": f"203.0.113.{number}"}
            answers = [(await login(client, "wrong", **named)).status for _ in range(6)]
            assert answers == [401] * 5 + [429]


def test_attempts_of_all_clients_together_are_bounded() -> None:
    limit = LoginLimit()
    assert all(limit.allows(f"203.0.113.{number}") for number in range(60))
    assert not limit.allows("198.51.100.1")


def test_a_network_of_ipv6_is_one_client() -> None:
    limit = LoginLimit()
    assert [limit.allows(f"2001:db8::{number}") for number in range(6)] == [True] * 5 + [False]
    assert limit.allows("2001:db8:0:1::1")


def test_a_signature_that_is_no_text_is_none() -> None:
    sessions = Sessions(config(**TOKENS))
    _role, cookie = sessions.open(TOKEN, secure=False)
    assert cookie is not None
    name = cookie.partition("=")[0]
    assert sessions.role(f"{name}=operate.{int(time.time()) + 60}.\udcff") is Role.NONE


def test_all_that_the_dashboard_asks_gets_the_cookie() -> None:
    scripts = resources.files("protoflow.web.dashboard") / "static"
    for script in scripts.iterdir():
        asked = re.findall(r"[\"`](api/[a-z][^\"`]*)", script.read_text("utf-8"))
        assert all(each.startswith("api/v1/") for each in asked), (script.name, asked)


def test_replicas_accept_a_session_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(**TOKENS)
    _role, cookie = Sessions(settings).open(TOKEN, secure=False)
    assert cookie is not None
    pair = cookie.partition(";")[0]
    assert Sessions(settings).role(pair) is Role.OPERATE
    assert Sessions(config(http_token="another")).role(pair) is Role.NONE
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 + 1)
    assert Sessions(settings).role(pair) is Role.NONE

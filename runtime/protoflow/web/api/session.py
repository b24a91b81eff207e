"""Sessions of browsers: login, logout, and the rights of the client."""

from __future__ import annotations

from protoflow import __version__
from protoflow.web.host import Host
from protoflow.web.request import Request, Role
from protoflow.web.response import Problem, Response, as_json
from protoflow.web.sessions import tokens_of


async def session(host: Host, request: Request) -> Response:
    """What the client may do, and whether it needs a token."""
    request.given(frozenset())
    return as_json(_session(host, request.role))


async def login(host: Host, request: Request) -> Response:
    """Opens a session of 12 hours for a token; five attempts a minute for each client."""
    request.given(frozenset())
    token = (await request.json(frozenset({"token"}))).get("token")
    if not isinstance(token, str):
        raise Problem(400, 'token is a text: {"token": "..."}')
    if not tokens_of(host.config):
        raise Problem(409, "no token is set, so there is nothing to sign in to")
    if not host.login_limit.allows(request.peer):
        raise Problem(
            429, "too many attempts; wait a minute, then try again",
            headers={"Retry-After": "60"},
        )  # fmt: skip
    role, cookie = host.sessions.open(token, secure=request.secure)
    if cookie is None:
        raise Problem(401, "this is not a token of the service; http_token and http_read_token are")
    response = as_json(_session(host, role))
    response.cookies = (cookie,)
    return response


async def logout(host: Host, request: Request) -> Response:
    """Ends the session, and the streams that it has opened."""
    request.given(frozenset())
    cookies = request.headers.get("cookie", "")
    response = as_json(_session(host, Role.NONE))
    response.cookies = host.sessions.closed(cookies, secure=request.secure)
    host.live.sign_out(cookies)
    return response


def _session(host: Host, role: Role) -> dict[str, object]:
    known = role >= Role.READ
    return {
        "role": role.label,
        "tokens": bool(tokens_of(host.config)),
        "payloads": known and host.config.http_payloads,
        "publish": role >= Role.OPERATE and host.config.http_publish,
        "journal": known and bool(host.config.journal),
        "alone": known and host.alone,
        "version": __version__ if known else None,
    }

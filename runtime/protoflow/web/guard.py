"""Who may ask: the bearer token, browsers of other origins, names of other hosts.

Without a token the pages under `/api` are for this machine only. A browser on it may be made to
ask by any page that it shows, so foreign origins and foreign host names are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from protoflow.config.secret import Secret

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS = "GET, POST, OPTIONS"
_HEADERS = "authorization, content-type"


class Guard:
    """Decides who may ask.

    Args:
        host: what the server binds to.
        token: the bearer token; None asks for none.
        origins: the origins of browsers that may read the pages; `*` is all.
    """

    def __init__(self, host: str, token: Secret | None, origins: tuple[str, ...]) -> None:
        self._host = host
        self._token = token if token else None
        self._origins = frozenset(origins)
        self._local = is_loopback(host)

    def authorized(self, request: web.Request) -> bool:
        """Whether the request has the token, or none is needed."""
        if self._token is None:
            return self._local
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # As bytes: text that is not ASCII cannot be compared in constant time. Bytes that are no
        # UTF-8 come as lone surrogates.
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), self._token.reveal().encode()
        )

    def middleware(self) -> Middleware:
        """The guard before every page."""

        @web.middleware
        async def guard(request: web.Request, handler: Page) -> web.StreamResponse:
            origin = request.headers.get("Origin")
            allowed = origin is not None and bool(self._origins & {origin, "*"})
            if refused := self._refused(request, origin, allowed):
                return refused
            if request.method == "OPTIONS" and allowed:
                response: web.StreamResponse = web.Response(status=204)
            else:
                response = await handler(request)
            if origin is not None and allowed:
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Access-Control-Allow-Methods"] = _METHODS
                response.headers["Access-Control-Allow-Headers"] = _HEADERS
                response.headers["Vary"] = "Origin"
            return response

        return guard

    def _refused(
        self, request: web.Request, origin: str | None, allowed: bool
    ) -> web.Response | None:
        if self._local and self._token is None and not self._known_host(request):
            return problem(403, "this host name is not served; ask for localhost")
        if origin is not None and not allowed and _netloc(origin) != request.host:
            return problem(403, "this origin is not in http_cors")
        preflight = request.method == "OPTIONS" and allowed
        if request.path in _OPEN and self._token is None:
            return None
        if request.path in ("/healthz", "/readyz") or preflight or self.authorized(request):
            return None
        if self._token is None:
            return problem(403, "beyond this machine set http_token")
        return problem(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})

    def _known_host(self, request: web.Request) -> bool:
        name = _hostname(request.host)
        return name in _LOCAL_NAMES or name == self._host or _is_loopback_address(name)


def problem(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as JSON."""
    return web.json_response({"error": text}, status=status, headers=headers)


def _netloc(origin: str) -> str | None:
    """The host and port of an origin; None if it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _hostname(host: str) -> str:
    """The name in a `Host` header; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to the host."""
    return host == "localhost" or _is_loopback_address(host)


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

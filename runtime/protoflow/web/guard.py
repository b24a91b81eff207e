"""Access control: bearer tokens, browsers of other origins, names of other hosts.

Without a token the pages under `/api` are for this machine only. Any page in a browser on this
machine could send requests, so foreign origins and foreign host names are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from protoflow.config.settings import Config
from protoflow.http_server.addresses import is_loopback_address
from protoflow.web.request import Request, Role
from protoflow.web.response import Problem
from protoflow.web.sessions import Sessions, tokens_of

#: The paths of probes and scrapers: they are open to all clients if no token is set.
PROBES = frozenset({"/healthz", "/readyz"})
_OPEN = PROBES | {"/metrics"}
#: Requests that change state with a session's cookie need this header, with any value.
CSRF_HEADER = "x-protoflow"
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS = "GET, POST, OPTIONS"
_HEADERS = "authorization, content-type"


class Guard:
    """Controls access. The settings name the host, the tokens and the origins."""

    def __init__(self, config: Config) -> None:
        self._host = config.http_host
        self._tokens = tokens_of(config)
        self._origins = frozenset(config.http_cors)
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in config.http_proxies]
        self._sessions = Sessions(config)

    def role(self, request: Request) -> Role:
        """Returns the role of the client. Raises Problem if a foreign page may have asked."""
        if not self._tokens:
            return Role.OPERATE if request.local else Role.NONE
        role = self._bearer(request)
        return role if role is not Role.NONE else self._cookie(request)

    def _bearer(self, request: Request) -> Role:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # The comparison uses bytes, because text that is not ASCII cannot be compared in constant
        # time. Bytes that are not UTF-8 arrive as lone surrogates. Each token is compared, even
        # after a match.
        token = given.strip().encode("utf-8", "surrogateescape")
        matched = [
            role if hmac.compare_digest(token, expected) else Role.NONE
            for expected, role in self._tokens
        ]
        return max(matched) if scheme.lower() == "bearer" else Role.NONE

    def _cookie(self, request: Request) -> Role:
        """Returns the role of a session. Browsers add its cookie to the requests of any page. So it
        only counts for pages of this origin, and changes need a header that no form can set."""
        role = self._sessions.role(request.headers.get("cookie", ""))
        origin = request.headers.get("origin")
        if role is Role.NONE or (origin is not None and _netloc(origin) != request.host):
            return Role.NONE
        if request.method not in ("GET", "HEAD") and CSRF_HEADER not in request.headers:
            raise Problem(403, f"a session changes nothing without the header {CSRF_HEADER}")
        return role

    def client(self, request: Request) -> str:
        """Returns the address of the client. Trusted proxies name it in `X-Forwarded-For`.

        A request through a Unix socket has no address and is trusted, because only this user can
        reach the socket.
        """
        forwarded = request.headers.get("x-forwarded-for", "").split(",")
        address = request.peer
        while forwarded and (not address or self._is_proxy(address)):
            address = forwarded.pop().strip() or address
        return address

    def check(self, request: Request) -> None:
        """Checks host and origin, before the path is looked up. Raises Problem."""
        if request.local and not self._tokens and not self._known_host(request):
            raise Problem(403, "this host name is not served; ask for localhost")
        origin = request.headers.get("origin")
        if origin is not None and not self.allows(origin) and _netloc(origin) != request.host:
            raise Problem(403, "this origin is not in http_cors")

    def authorize(self, request: Request, needed: Role, role: Role) -> None:
        """Checks that this role of a client is sufficient for a request. Raises Problem."""
        if role >= needed or (request.path in _OPEN and not self._tokens):
            return
        if not self._tokens:
            raise Problem(403, "requests from other machines need a token; set http_token")
        if role is Role.NONE:
            raise Problem(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        raise Problem(403, "this token only reads; use the one of http_token")

    def allows(self, origin: str | None) -> bool:
        """Whether browsers of an origin may read the pages."""
        return origin is not None and bool(self._origins & {origin, "*"})

    def cors(self, request: Request) -> Mapping[str, str]:
        """Returns the headers that let a browser of another origin read the response."""
        origin = request.headers.get("origin")
        if origin is None or not self.allows(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _HEADERS,
            "Vary": "Origin",
        }

    def _is_proxy(self, address: str) -> bool:
        if not self._proxies:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)

    def _known_host(self, request: Request) -> bool:
        name = _hostname(request.host)
        return name in _LOCAL_NAMES or name == self._host or is_loopback_address(name)


def is_secure(scheme: str, forwarded: str | None) -> bool:
    """Whether the client uses TLS, with this server or with a proxy that reports it."""
    return scheme == "https" or (forwarded or "").partition(",")[0].strip().lower() == "https"


def _netloc(origin: str) -> str | None:
    """Returns the host and port of an origin; None if it is invalid."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _hostname(host: str) -> str:
    """Returns the name in a `Host` header; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

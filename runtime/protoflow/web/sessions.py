"""Sessions of browsers: a signed cookie, which no script can read, instead of a token.

A session is not stored on the server: after a restart, and on replicas with the same token, it is
still valid.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from typing import Final

from protoflow.config.settings import Config
from protoflow.web.request import Role

#: Seconds that a session lasts.
LASTS: Final = 12 * 3600
_NAME: Final = "protoflow-"


def tokens_of(config: Config) -> list[tuple[bytes, Role]]:
    """Returns the tokens that the settings name, with their roles."""
    named = ((config.http_token, Role.OPERATE), (config.http_read_token, Role.READ))
    return [(token.reveal().encode(), role) for token, role in named if token]


def session_cookies(cookies: str) -> frozenset[str]:
    """Returns the cookies of sessions in a `Cookie` header, each as `name=value`."""
    parts = (part.strip() for part in cookies.split(";"))
    return frozenset(part for part in parts if part.startswith(_NAME))


class Sessions:
    """Creates and checks the cookies of sessions.

    Args:
        config: names the tokens.
    """

    def __init__(self, config: Config) -> None:
        #: Cookies are shared between the ports of a host, so each service has its own cookie name.
        self._keys = {
            f"{_NAME}{_digest(token, b'name')[:8]}": (token, role)
            for token, role in tokens_of(config)
        }

    def role(self, cookies: str) -> Role:
        """Returns the role of the best session in a `Cookie` header."""
        found = Role.NONE
        for part in session_cookies(cookies):
            name, _, value = part.partition("=")
            token, role = self._keys.get(name, (b"", Role.NONE))
            if role is not Role.NONE and _valid(token, role, value):
                found = max(found, role)
        return found

    def open(self, token: str, *, secure: bool) -> tuple[Role, str | None]:
        """Returns the role of a token, and the cookie of a session; None if the token is wrong."""
        given = token.encode("utf-8", "surrogatepass")
        cookie, found = None, Role.NONE
        for name, (expected, role) in self._keys.items():
            if hmac.compare_digest(given, expected):
                expires = int(time.time()) + LASTS
                value = f"{role.label}.{expires}.{_sign(expected, role, expires)}"
                cookie, found = _cookie(name, value, LASTS, secure=secure), role
        return found, cookie

    def closed(self, cookies: str, *, secure: bool) -> Sequence[str]:
        """Returns the cookies that end the sessions in a `Cookie` header.

        Other names are not returned: a name is derived from a token, so a foreign client could test
        tokens with it.
        """
        given = {part.partition("=")[0] for part in session_cookies(cookies)}
        return [_cookie(name, "", 0, secure=secure) for name in self._keys if name in given]


def _valid(token: bytes, role: Role, value: str) -> bool:
    label, _, rest = value.partition(".")
    expires, _, signature = rest.partition(".")
    if label != role.label or not (expires.isascii() and expires.isdecimal()):
        return False
    expected = _sign(token, role, int(expires[:20]))
    given = signature.encode("utf-8", "surrogatepass")  # the bytes of a header arrive as surrogates
    return hmac.compare_digest(given, expected.encode()) and time.time() < int(expires)


def _sign(token: bytes, role: Role, expires: int) -> str:
    return _digest(token, f"{role.label}.{expires}".encode())


def _digest(token: bytes, text: bytes) -> str:
    return hmac.new(token, text, "sha256").hexdigest()


def _cookie(name: str, value: str, seconds: int, *, secure: bool) -> str:
    """Returns a cookie for the paths below that of the request, which is the API's."""
    parts = (f"{name}={value}", f"Max-Age={seconds}", "HttpOnly", "SameSite=Strict")
    return "; ".join((*parts, "Secure") if secure else parts)

"""A request in the form that routes use, on any server."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from protoflow.codecs.json_text import loads
from protoflow.web.response import Problem

#: The largest body in bytes.
LARGEST_BODY: Final = 1024 * 1024
#: The header of requests that a parent of workers sends to each of them.
PARENT: Final = "x-protoflow-parent"
#: The highest number of query parameters.
_MOST_PARAMETERS = 50


class Role(enum.IntEnum):
    """The rights of a client; each role includes those below."""

    NONE = 0
    READ = 1
    OPERATE = 2

    @property
    def label(self) -> str:
        """The name of the role for people."""
        return self.name.lower()


def _admitted() -> bool:
    return True


async def _no_body() -> bytes:
    return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request.

    Attributes:
        method: in upper case.
        path: the percent-encoded path below the mount of the application.
        query: the percent-encoded query string.
        headers: by name in lower case.
        local: whether only this machine can reach the server of the request.
        peer: the address of the client; trusted proxies name it.
        secure: whether it came through TLS, here or at a proxy.
        read: reads the body. Raises Problem: too large, or too slow.
        parameters: the parameters of the path, decoded.
        role: the rights of the client.
        still_admitted: returns whether the client still has the rights; a session may have ended.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    local: bool = False
    peer: str = ""
    secure: bool = False
    read: Callable[[], Awaitable[bytes]] = _no_body
    parameters: Mapping[str, str] = field(default_factory=dict)
    role: Role = Role.NONE
    still_admitted: Callable[[], bool] = _admitted

    @property
    def host(self) -> str:
        """The `Host` header."""
        return self.headers.get("host", "")

    @property
    def segments(self) -> tuple[str, ...]:
        """The parts of the path between slashes, decoded."""
        return tuple(unquote(part) for part in self.path.split("/")[1:])

    def given(self, known: frozenset[str]) -> dict[str, str]:
        """Returns the parameters of the query.

        Raises:
            Problem: a parameter is unknown, or given twice.
        """
        try:
            pairs = parse_qsl(
                self.query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS,
                errors="strict",
            )  # fmt: skip
        except ValueError:
            raise Problem(400, "the query is not UTF-8, or has too many parameters") from None
        found: dict[str, str] = {}
        for name, value in pairs:
            if name not in known:
                named = ", ".join(sorted(known)) or "none"
                raise Problem(400, f"unknown parameter {name!r:.100}; known: {named}")
            if name in found:
                raise Problem(400, f"parameter {name} is given twice")
            found[name] = value
        return found

    async def json(self, known: frozenset[str]) -> dict[str, Any]:
        """Returns the JSON object of the body; empty without a body.

        Raises:
            Problem: the body is not a JSON object, or has an unknown member.
        """
        body = await self.read()
        try:
            content = loads(body) if body.strip() else {}
        except RecursionError:
            raise Problem(400, "the body nests too deeply") from None
        except ValueError:
            raise Problem(400, "the body is not JSON") from None
        if not isinstance(content, dict):
            raise Problem(400, "the body is not a JSON object")
        if unknown := sorted(content.keys() - known):
            raise Problem(
                400, f"unknown member {unknown[0]!r:.100}; known: {', '.join(sorted(known))}"
            )
        return content

    def routed(
        self, parameters: Mapping[str, str], role: Role, still_admitted: Callable[[], bool]
    ) -> Request:
        """Returns the request with the results of the router and the guard."""
        return replace(self, parameters=parameters, role=role, still_admitted=still_admitted)

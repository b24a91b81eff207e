"""A request as routes see it, whatever server it came through."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from protoflow.codecs.json_text import loads
from protoflow.web.response import Problem

#: Bytes of a body at most.
LARGEST_BODY: Final = 1024 * 1024
#: The most parameters of a query.
_MOST_PARAMETERS = 50


class Role(enum.IntEnum):
    """What a client may do; each role includes those below."""

    NONE = 0
    READ = 1
    OPERATE = 2

    @property
    def label(self) -> str:
        """The role as people write it."""
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
        path: still percent-encoded, beneath the place where the application is mounted.
        query: the query string, still percent-encoded.
        headers: by name in lower case.
        local: only this machine reaches what the request came through.
        peer: the address of the client, as proxies that are trusted name it.
        secure: it came through TLS, here or at a proxy.
        read: reads the body. Raises Problem: too large, or too slow.
        parameters: the parameters of the path, decoded.
        role: what the client may do.
        still_admitted: whether the client may ask for it now, too; a session may have ended.
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
            Problem: one is unknown, or there twice.
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
            Problem: it is not JSON, no object, or has an unknown member.
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
        """Returns the request with what the router and the guard have found."""
        return replace(self, parameters=parameters, role=role, still_admitted=still_admitted)

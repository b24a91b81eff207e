"""A route as data: its path, its role, and its response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from protoflow.web.host import Host
from protoflow.web.request import Request, Role
from protoflow.web.response import JSON, Response

#: Answers a request with the data of the service.
Function: TypeAlias = Callable[[Host, Request], Awaitable[Response]]
Schema: TypeAlias = Mapping[str, Any]

#: Seconds that a response may take.
READING, CHANGING = 30.0, 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        method: in upper case.
        path: with parameters in braces, `/api/v1/handlers/{name}`.
        role: the role that a client needs.
        function: the function that answers.
        summary: what it does, for the documentation.
        schema: the name of the schema of the response.
        status: of a response without an error.
        query: the schemas of the parameters of the query.
        body: the name of the schema of the body; "" takes none.
        content_type: of the response.
        seconds: the time limit of the response.
        across: how the responses of several workers are joined; `any` takes the first.
    """

    method: str
    path: str
    role: Role
    function: Function
    summary: str
    schema: str
    status: int = 200
    query: Mapping[str, Schema]
    body: str = ""
    content_type: str = JSON
    seconds: float = READING
    across: str = "any"

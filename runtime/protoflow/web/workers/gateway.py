"""The gateway: answers for all workers of a parent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, UnixConnector
from yarl import URL

from protoflow.web.request import Request
from protoflow.web.response import JSON, NDJSON, Problem, Response, as_json
from protoflow.web.route import Route
from protoflow.web.workers.joining import JOIN

_FORWARDED = ("authorization", "accept", "content-type", "host", "origin")
_NO_LIMIT = ClientTimeout(total=None, connect=5.0)


class Gateway:
    """Asks workers over their Unix sockets, and joins what they answer.

    Each worker has its own guard, and gets the token of the client.

    Args:
        sockets: where the workers listen, in their order.
    """

    def __init__(self, sockets: Sequence[str]) -> None:
        self._sessions = [
            ClientSession(connector=UnixConnector(path), timeout=_NO_LIMIT, auto_decompress=False)
            for path in sockets
        ]

    async def close(self) -> None:
        """Closes the connections."""
        for session in self._sessions:
            await session.close()

    async def answer(self, route: Route, request: Request) -> Response:
        """Answers a request, by what the route says of several workers. Raises Problem."""
        body = await request.read() if request.method == "POST" else b""
        if route.across == "any":
            return await self._any(request, body)
        answers = await asyncio.gather(
            *(self._whole(session, request, body) for session in self._sessions)
        )
        if route.across == "probe":
            return _probe(request, answers)
        refused = [one for one in answers if one is not None and one.status >= 400]
        if refused and len(refused) == sum(one is not None for one in answers):
            return refused[0]
        good = [one for one in answers if one is not None and one.status < 400]
        if not good:
            raise _nobody()
        if route.across == "metrics":
            from protoflow.observability.joined_metrics import joined

            text, content_type = joined([one.body for one in good])
            return Response(body=text, content_type=content_type)
        content = JOIN[route.across]([json.loads(one.body) for one in good])
        if request.method == "POST" and len(good) < len(self._sessions):
            left = [str(number) for number, one in enumerate(answers, 1) if one not in good]
            raise Problem(503, f"worker {', '.join(left)} was not reached; repeat it", more=content)
        return as_json(content, good[0].status)

    async def _any(self, request: Request, body: bytes) -> Response:
        """The answer of the first worker that is reached."""
        for session in self._sessions:
            try:
                answer = await self._ask(session, request, body)
            except (ClientError, OSError):
                continue
            if answer.content_type == NDJSON:
                return Response(
                    stream=_parts(answer),
                    content_type=NDJSON,
                    headers={"Content-Disposition": answer.headers["Content-Disposition"]},
                )
            return await _read(answer)
        raise _nobody()

    async def _whole(
        self, session: ClientSession, request: Request, body: bytes
    ) -> Response | None:
        """The answer of one worker; None: it is not reached."""
        try:
            return await _read(await self._ask(session, request, body))
        except (ClientError, OSError):
            return None

    async def _ask(self, session: ClientSession, request: Request, body: bytes) -> ClientResponse:
        url = URL(f"http://worker{request.path}?{request.query}".rstrip("?"), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name in _FORWARDED}
        if request.path == "/metrics":
            headers["accept"] = "text/plain"
        method = "GET" if request.method == "HEAD" else request.method
        return await session.request(
            method, url, headers=headers, data=body or None, allow_redirects=False
        )


async def _read(answer: ClientResponse) -> Response:
    async with answer:
        headers = {
            name: answer.headers[name]
            for name in ("Allow", "Retry-After", "WWW-Authenticate")
            if name in answer.headers
        }
        return Response(
            status=answer.status,
            body=await answer.read(),
            content_type=answer.headers.get("Content-Type", JSON),
            headers=headers,
        )


async def _parts(answer: ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for part in answer.content.iter_any():
            yield part


def _probe(request: Request, answers: Sequence[Response | None]) -> Response:
    """Ready where all are; live while none that answers is dead: the parent restarts others."""
    ready = request.path == "/readyz"
    problems: dict[str, str] = {}
    shown = False
    good = True
    for number, answer in enumerate(answers, 1):
        if answer is None:
            good = good and not ready
            problems[f"worker {number}"] = "does not answer"
            continue
        content: Any = json.loads(answer.body)
        good = good and answer.status == 200
        shown = shown or "problems" in content
        for name, text in content.get("problems", {}).items():
            problems[f"worker {number}: {name}"] = text
    state: dict[str, Any] = {"status": "ok" if good else "failing"}
    if shown:  # the client has a token, or needs none
        state["problems"] = problems
    return as_json(state, 200 if good else 503)


def _nobody() -> Problem:
    return Problem(503, "no worker answers; they start, or stop", headers={"Retry-After": "1"})

"""The gateway: answers for all workers of a parent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    UnixConnector,
)
from yarl import URL

from protoflow.web.guard import CSRF_HEADER
from protoflow.web.joining import JOIN
from protoflow.web.live import Live
from protoflow.web.request import PARENT, Request
from protoflow.web.response import EVENTS, JSON, NDJSON, Problem, Response, as_json
from protoflow.web.route import Route
from protoflow.web.routes import LOGOUT, SNAPSHOT

_FORWARDED = (
    *("authorization", "accept", "content-type", "host", "origin", "cookie", CSRF_HEADER),
    "x-forwarded-proto",
)
#: The headers of responses that are passed on; others are the parent's own.
_RETURNED = ("Allow", "Retry-After", "WWW-Authenticate", "Content-Security-Policy",
             "Referrer-Policy")  # fmt: skip
_NO_LIMIT = ClientTimeout(total=None, connect=5.0)


class Gateway:
    """Sends requests to workers over their Unix sockets, and joins the answers.

    Each worker has its own guard, and gets the token of the client.

    Args:
        sockets: the sockets of the workers, in order.
    """

    def __init__(self, sockets: Sequence[str]) -> None:
        self._sessions = [
            ClientSession(
                connector=UnixConnector(path), timeout=_NO_LIMIT, auto_decompress=False,
                # A client must not get the session of another client.
                cookie_jar=DummyCookieJar(),
            )
            for path in sockets
        ]  # fmt: skip
        self._live = Live()

    def end(self) -> None:
        """Ends streams."""
        self._live.end()

    async def close(self) -> None:
        """Closes the connections."""
        for session in self._sessions:
            await session.close()

    async def answer(self, route: Route, request: Request) -> Response:
        """Answers a request by the route's rule for several workers. Raises Problem."""
        if route.content_type == EVENTS:
            return self._stream(request)
        if route is LOGOUT:
            self._live.sign_out(request.headers.get("cookie", ""))
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

    def _stream(self, request: Request) -> Response:
        """Yields the joined snapshot of all workers repeatedly."""
        one = replace(request, path=SNAPSHOT.path, query="")

        async def take() -> Any:
            answer = await self.answer(SNAPSHOT, one)
            content = json.loads(answer.body)
            if answer.status >= 400:
                raise Problem(answer.status, content["detail"])
            return content

        return Response(
            stream=self._live.stream(take, request), content_type=EVENTS,
            headers={"X-Accel-Buffering": "no"},
        )  # fmt: skip

    async def _any(self, request: Request, body: bytes) -> Response:
        """Returns the answer of the first reachable worker."""
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
        """Returns the answer of one worker; None if it cannot be reached."""
        try:
            return await _read(await self._ask(session, request, body))
        except (ClientError, OSError):
            return None

    async def _ask(self, session: ClientSession, request: Request, body: bytes) -> ClientResponse:
        url = URL(f"http://worker{request.path}?{request.query}".rstrip("?"), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name in _FORWARDED}
        headers["x-forwarded-for"] = request.peer
        if request.path == "/metrics":
            headers.update({"accept": "text/plain", PARENT: "1"})
        method = "GET" if request.method == "HEAD" else request.method
        return await session.request(
            method, url, headers=headers, data=body or None, allow_redirects=False
        )


async def _read(answer: ClientResponse) -> Response:
    async with answer:
        headers = {name: answer.headers[name] for name in _RETURNED if name in answer.headers}
        return Response(
            status=answer.status,
            body=await answer.read(),
            content_type=answer.headers.get("Content-Type", JSON),
            headers=headers,
            cookies=answer.headers.getall("Set-Cookie", ()),
        )


async def _parts(answer: ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for part in answer.content.iter_any():
            yield part


def _probe(request: Request, answers: Sequence[Response | None]) -> Response:
    """Ready if all workers are ready. Live while no answering worker is dead, because the parent
    restarts the others."""
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

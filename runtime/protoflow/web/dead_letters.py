"""Pages of dead letters: list, show, replay, purge. Payloads, keys and foreign metadata are
not shown: they may hold what must not be seen."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from protoflow import wire
from protoflow.codecs.json_text import loads
from protoflow.errors import CapabilityError, DeadLetterNotFoundError, TransportError
from protoflow.observability.report import Reporter
from protoflow.stats.dead_letters import timestamp
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.dead_letters import DeadLetters
from protoflow.web.deadlines import PATIENCE
from protoflow.web.guard import Page, problem

_LONGEST_LIST = 1000
_SHOWN = {
    "type": wire.CE_TYPE,
    "source": wire.CE_SOURCE,
    "original_topic": wire.PF_ORIGINAL_TOPIC,
    "original_partition": wire.PF_ORIGINAL_SHARD,
    "original_offset": wire.PF_ORIGINAL_POSITION,
    "group": wire.PF_GROUP,
    "handler": wire.PF_HANDLER,
    "attempts": wire.PF_ATTEMPT,
    "error_class": wire.PF_ERROR_CLASS,
    "error_type": wire.PF_ERROR_TYPE,
    "error_message": wire.PF_ERROR_MESSAGE,
    "correlation_id": wire.CORRELATION_ID,
    "traceparent": wire.TRACEPARENT,
}


class DeadLetterPages:
    """The pages under `/api/dlq`."""

    def __init__(self, dead_letters: DeadLetters, reporter: Reporter) -> None:
        self._dead_letters = dead_letters
        self._reporter = reporter

    def routes(self) -> list[web.RouteDef]:
        """What is asked where."""
        return [
            web.get("/api/dlq", _told(self.topics)),
            web.get("/api/dlq/{topic}", _told(self.list)),
            web.get("/api/dlq/{topic}/{id}", _told(self.show)),
            web.post("/api/dlq/{topic}/replay", _told(self.replay)),
            web.post("/api/dlq/{topic}/purge", _told(self.purge)),
        ]

    async def topics(self, _request: web.Request) -> web.Response:
        """Every dead-letter topic, with its counters."""
        await self._reporter.refresh()
        return web.json_response(self._reporter.host.counters.dead_letters.snapshot())

    async def list(self, request: web.Request) -> web.Response:
        """The oldest letters of a topic."""
        limit = min(_LONGEST_LIST, max(1, int(request.query.get("limit", "100"))))
        records = await self._dead_letters.list(request.match_info["topic"], limit=limit)
        return web.json_response([shown(record) for record in records])

    async def show(self, request: web.Request) -> web.Response:
        """One letter."""
        record = await self._dead_letters.show(
            request.match_info["topic"], request.match_info["id"]
        )
        return web.json_response(shown(record))

    async def replay(self, request: web.Request) -> web.Response:
        """Gives letters back: `{"ids": [...], "to_origin": false}`; no ids is all."""
        asked = await _asked(request)
        count = await self._dead_letters.replay(
            request.match_info["topic"], asked.get("ids"), to_origin=asked.get("to_origin", False)
        )
        return web.json_response({"replayed": count})

    async def purge(self, request: web.Request) -> web.Response:
        """Deletes letters: `{"ids": [...]}`, or all of them: `{"all": true}`."""
        asked = await _asked(request)
        if asked.get("ids") is None and not asked.get("all"):
            raise ValueError('name the letters, {"ids": [...]}, or say {"all": true}')
        count = await self._dead_letters.purge(request.match_info["topic"], asked.get("ids"))
        return web.json_response({"purged": count})


def shown(record: DeadLetterRecord) -> dict[str, Any]:
    """A letter as JSON, without payload and key."""
    message = record.message
    return {
        "id": message.id,
        "position": record.position,
        "dead_lettered_at": timestamp(record.time),
        "size": len(message.payload or b""),
        **{name: message.metadata.get(header) for name, header in _SHOWN.items()},
    }


async def _asked(request: web.Request) -> dict[str, Any]:
    """The body. Raises ValueError."""
    body = b""
    if request.can_read_body:
        async with asyncio.timeout(PATIENCE):
            body = await request.read()
    try:
        asked = loads(body) if body.strip() else {}
    except RecursionError:
        raise ValueError("the body nests too deeply") from None
    except ValueError:
        raise ValueError("the body is not JSON") from None
    if not isinstance(asked, dict) or not asked.keys() <= {"ids", "all", "to_origin"}:
        raise ValueError('the body is {"ids": [...], "all": false, "to_origin": false}')
    ids = asked.get("ids")
    if ids is not None and not (
        isinstance(ids, list) and all(isinstance(item, str) for item in ids)
    ):
        raise ValueError("ids is a list of message ids")
    for name in ("all", "to_origin"):
        if not isinstance(asked.get(name, False), bool):
            raise ValueError(f"{name} is true or false")
    if ids is not None and asked.get("all"):
        raise ValueError("give ids or all, not both")
    return asked


def _told(page: Page) -> Page:
    """Errors become answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await page(request)
        except DeadLetterNotFoundError as error:
            return problem(404, str(error))
        except CapabilityError as error:
            return problem(501, str(error))
        except TransportError as error:
            return problem(502, str(error))
        except web.RequestPayloadError:
            return problem(400, "the body cannot be read")
        except TimeoutError:
            return problem(408, "the body did not come in time")
        except ValueError as error:
            return problem(400, str(error))

    return answer

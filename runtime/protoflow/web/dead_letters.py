"""Pages of dead letters: list, show, replay, purge.

Payloads, keys and foreign metadata are not shown: they may hold sensitive data.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from protoflow import wire
from protoflow.errors import CapabilityError, DeadLetterNotFoundError, ReplayError, TransportError
from protoflow.observability.report import Reporter
from protoflow.stats.dead_letters import timestamp
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.dead_letters import DeadLetters
from protoflow.web.dead_letter_requests import body_of, filter_of, page_of
from protoflow.web.guard import Page, problem

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
        """Routes."""
        return [
            web.get("/api/dlq", _answered(self.topics)),
            web.get("/api/dlq/{topic}", _answered(self.list)),
            web.get("/api/dlq/{topic}/{id}", _answered(self.show)),
            web.post("/api/dlq/{topic}/replay", _answered(self.replay)),
            web.post("/api/dlq/{topic}/purge", _answered(self.purge)),
        ]

    async def topics(self, _request: web.Request) -> web.Response:
        """Every dead-letter topic, with its counters."""
        await self._reporter.refresh()
        return web.json_response(self._reporter.host.counters.dead_letters.snapshot())

    async def list(self, request: web.Request) -> web.Response:
        """A page of the oldest dead letters of a topic, filtered."""
        limit, after, filter = page_of(request.query)
        records = await self._dead_letters.list(
            request.match_info["topic"], limit=limit, after=after, filter=filter
        )
        return web.json_response([shown(record) for record in records])

    async def show(self, request: web.Request) -> web.Response:
        """One dead letter."""
        record = await self._dead_letters.show(
            request.match_info["topic"], request.match_info["id"]
        )
        return web.json_response(shown(record))

    async def replay(self, request: web.Request) -> web.Response:
        """Replays `{"ids": [...], "to_origin": false}`, or all that match the filter."""
        filter, body = filter_of(request.query), await body_of(request)
        count = await self._dead_letters.replay(
            request.match_info["topic"],
            body.get("ids"),
            to_origin=body.get("to_origin", False),
            filter=filter,
        )
        return web.json_response({"replayed": count})

    async def purge(self, request: web.Request) -> web.Response:
        """Removes `{"ids": [...]}`, what matches the filter, or all: `{"all": true}`."""
        filter, body = filter_of(request.query), await body_of(request)
        if body.get("ids") is None and not body.get("all") and filter is None:
            raise ValueError(
                'name the dead letters, {"ids": [...]}, give a filter, or say {"all": true}'
            )
        count = await self._dead_letters.purge(
            request.match_info["topic"], body.get("ids"), filter=filter
        )
        return web.json_response({"purged": count})


def shown(record: DeadLetterRecord) -> dict[str, Any]:
    """Returns a dead letter as JSON, without payload and key."""
    message = record.message
    return {
        "id": message.id,
        "position": record.position,
        "dead_lettered_at": timestamp(record.time),
        "size": len(message.payload or b""),
        **{name: message.metadata.get(header) for name, header in _SHOWN.items()},
    }


def _answered(page: Page) -> Page:
    """Errors become answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await page(request)
        except DeadLetterNotFoundError as error:
            return problem(404, str(error))
        except ReplayError as error:
            return web.json_response(
                {
                    "error": str(error),
                    "replayed": error.replayed,
                    "left_count": error.left_count,
                    "left": {id: f"{reason}" for id, reason in error.left.items()},
                },
                status=409,
            )
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

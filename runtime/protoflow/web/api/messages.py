"""One message: its history, and the searched places."""

from __future__ import annotations

import asyncio

from protoflow.message_search import Bounds, Report, search_broker, search_journal
from protoflow.web.api.dead_letter_requests import seconds_of
from protoflow.web.api.dead_letters import shown
from protoflow.web.api.metadata import key_of
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Response, as_json


async def message(host: Host, request: Request) -> Response:
    """What happened to a message, from the journal and the broker."""
    since = request.given(frozenset({"since"})).get("since")
    bounds = Bounds() if since is None else Bounds(since=seconds_of("since", since))
    report = Report(id=request.parameters["id"])
    await asyncio.to_thread(search_journal, host.config, report)
    await search_broker(host.transport, host.dead_letters, host.topology(), report, bounds)
    rows = [shown(topic, record) for topic, record in report.dead_letters]
    key = key_of(host, report.message) if report.message is not None else None
    return as_json(report.as_dict() | {"dead_letters": rows, "key": key})

"""`/metrics` for Prometheus."""

from __future__ import annotations

from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Response


async def metrics(host: Host, request: Request) -> Response:
    """The metrics; 501 if the extra is not installed."""
    exposition = host.exposition()
    await host.reporter.refresh()
    text, content_type = exposition.render(request.headers.get("accept", ""))
    return Response(body=text, content_type=content_type)

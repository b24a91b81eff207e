"""`/metrics` for Prometheus."""

from __future__ import annotations

from protoflow.web.host import Host
from protoflow.web.request import PARENT, Request
from protoflow.web.response import Response


async def metrics(host: Host, request: Request) -> Response:
    """The metrics; 501 if the extra is not installed."""
    # The parent of workers adds the metrics of the application once, for all workers.
    exposition = host.exposition(application=PARENT not in request.headers)
    await host.reporter.refresh()
    text, content_type = exposition.render(request.headers.get("accept", ""))
    return Response(body=text, content_type=content_type)

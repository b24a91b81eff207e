"""Webhooks, received and sent: `http://`, `https://`.

`http://` without a host listens nowhere: an application mounts `app`, the ASGI application of the
services on its event loop.
"""

from __future__ import annotations

from protoflow.config.options import parse_options
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports.http.asgi import app as app
from protoflow.transports.http.hand_off import HandOffTransport
from protoflow.transports.http.options import HttpOptions
from protoflow.transports.http.transport import HttpTransport

__all__ = ["app", "create"]


def create(settings: TransportSettings) -> Transport:
    """Returns a transport for HTTP. Raises ConfigError for bad options."""
    options = parse_options(HttpOptions, settings.url.query, settings.options, "http")
    if options.hand_off is None:
        return HttpTransport(settings, options)
    return HandOffTransport(settings, options, options.hand_off)

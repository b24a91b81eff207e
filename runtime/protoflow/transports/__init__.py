"""One package per broker, imported when its URL scheme is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from protoflow.error_codes import TRANSPORT_URL
from protoflow.errors import ConfigError, MissingExtraError
from protoflow.transport.interface import Transport, TransportFactory, TransportSettings
from protoflow.transports.built_in import BY_SCHEME

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def factory(scheme: str) -> TransportFactory:
    """The factory for a URL scheme.

    Raises:
        ConfigError: the scheme is unknown.
        MissingExtraError: the client library is not installed.
    """
    built_in = BY_SCHEME.get(scheme)
    if built_in is not None:
        try:
            module = importlib.import_module(f"{__name__}.{built_in.module}")
        except ModuleNotFoundError as error:
            client = built_in.clients.get((error.name or "").partition(".")[0])
            if client is None:
                raise
            raise MissingExtraError(built_in.extra, client) from error
        return cast(TransportFactory, module.create)
    installed = _installed()
    if scheme in installed:
        return cast(TransportFactory, installed[scheme].load())
    known = ", ".join(sorted({*BY_SCHEME, *installed}))
    raise ConfigError(
        f"transport: unknown scheme {scheme}://; known are {known}", code=TRANSPORT_URL
    )


def _installed() -> Mapping[str, EntryPoint]:
    """The transports that installed third parties bring, by scheme."""
    from importlib.metadata import entry_points  # put off: most services need none

    return {point.name: point for point in entry_points(group="protoflow.transports")}


def create(settings: TransportSettings) -> Transport:
    """A transport for the URL in the settings, not yet open."""
    return factory(settings.url.scheme)(settings)

"""One module per broker, imported when its URL scheme is used."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Final, cast

from protoflow.errors import ConfigError, MissingExtraError
from protoflow.transport import Transport, TransportFactory, TransportSettings

#: Scheme -> (module, extra that installs its client).
_BUILT_IN: Final = {
    "memory": ("memory", None),
    "sqlite": ("sqlite", None),
    "kafka": ("kafka", "kafka"),
    "kafka+ssl": ("kafka", "kafka"),
    "amqp": ("rabbitmq", "rabbitmq"),
    "amqps": ("rabbitmq", "rabbitmq"),
    "nats": ("nats", "nats"),
    "nats+tls": ("nats", "nats"),
    "jetstream": ("jetstream", "nats"),
    "jetstream+tls": ("jetstream", "nats"),
}
#: Python module of a client -> its name on the package index, for the error text.
_CLIENTS: Final = {"aiokafka": "aiokafka", "aio_pika": "aio-pika", "nats": "nats-py"}


def factory(scheme: str) -> TransportFactory:
    """The factory for a URL scheme.

    Raises:
        ConfigError: nobody knows the scheme.
        MissingExtraError: the client library is not installed.
    """
    if scheme in _BUILT_IN:
        module, extra = _BUILT_IN[scheme]
        try:
            return cast(TransportFactory, importlib.import_module(f"{__name__}.{module}").create)
        except ModuleNotFoundError as error:
            client = _CLIENTS.get((error.name or "").partition(".")[0])
            if client is None or extra is None:
                raise
            raise MissingExtraError(extra, client) from error
    found = importlib.metadata.entry_points(group="protoflow.transports", name=scheme)
    for entry_point in found:
        return cast(TransportFactory, entry_point.load())
    known = ", ".join(sorted({*_BUILT_IN, *installed()}))
    raise ConfigError(f"transport: nobody knows the scheme {scheme}://; known are {known}")


def installed() -> list[str]:
    """The schemes that installed third parties bring."""
    return sorted(
        entry_point.name
        for entry_point in importlib.metadata.entry_points(group="protoflow.transports")
    )


def create(settings: TransportSettings) -> Transport:
    """A transport for the URL in the settings, not yet open."""
    return factory(settings.url.scheme)(settings)

"""One module per broker, imported when its URL scheme is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from protoflow.errors import ConfigError, MissingExtraError
from protoflow.transport.interface import Transport, TransportFactory, TransportSettings

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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
_CLIENTS: Final = {
    "aiokafka": "aiokafka",
    "aio_pika": "aio-pika",
    "aiormq": "aio-pika",
    "nats": "nats-py",
}


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
    installed = _installed()
    if scheme in installed:
        return cast(TransportFactory, installed[scheme].load())
    known = ", ".join(sorted({*_BUILT_IN, *installed}))
    raise ConfigError(f"transport: nobody knows the scheme {scheme}://; known are {known}")


def _installed() -> Mapping[str, EntryPoint]:
    """The transports that installed third parties bring, by scheme."""
    from importlib.metadata import entry_points  # put off: most services need none

    return {point.name: point for point in entry_points(group="protoflow.transports")}


def create(settings: TransportSettings) -> Transport:
    """A transport for the URL in the settings, not yet open."""
    return factory(settings.url.scheme)(settings)

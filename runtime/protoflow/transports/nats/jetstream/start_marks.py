"""Start marks of suspects: messages in the group's own stream, one subject for each suspect.

A mark contains the message's time, because a new stream starts its sequences again.
"""

from __future__ import annotations

import base64

from protoflow.error_codes import OTHER_VERSION
from protoflow.errors import TransportError
from protoflow.message import Delivery
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.nats.jetstream.api import API
from protoflow.transports.nats.names import JetStreamNames

_VERSION = "1"


class StartMarks:
    """The start marks of one subscription."""

    def __init__(self, api: API, names: JetStreamNames, settings: SubscriptionSettings) -> None:
        self._api = api
        self._names = names
        self._settings = settings
        self._stream = names.group_stream(settings.group)

    async def count(self, delivery: Delivery) -> int:
        """Returns the number of starts without an end. Raises TransportError."""
        subject = self._subject(delivery)
        found = await self._api.last_message(self._stream, subject)
        if found is None:
            return 0
        version, _, rest = base64.b64decode(found.get("data", "")).decode().partition(" ")
        if version != _VERSION:
            raise TransportError(
                f"{self._settings.name}: a start mark in stream {self._stream} has version "
                f"{version[:20]!r}, not {_VERSION}; remove it: nats stream purge {self._stream}"
                f" --subject {subject!r}",
                code=OTHER_VERSION,
            )
        marks, _, time = rest.partition(" ")
        return int(marks) if time == _time(delivery) else 0

    async def add(self, delivery: Delivery, before: int) -> None:
        """Writes another start mark, which is then durable. Raises TransportError."""
        text = f"{_VERSION} {before + 1} {_time(delivery)}"
        await self._api.publish(self._subject(delivery), text.encode())

    async def clear(self, delivery: Delivery) -> None:
        """Removes all marks. Raises TransportError."""
        await self._api.purge(self._stream, self._subject(delivery))

    def _subject(self, delivery: Delivery) -> str:
        settings = self._settings
        return self._names.mark(settings.topic, settings.group, delivery.position)


def _time(delivery: Delivery) -> str:
    return f"{delivery.time:.9f}"

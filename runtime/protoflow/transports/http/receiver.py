"""The topics that are received on one address, by all transports of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Final
from weakref import WeakKeyDictionary

from protoflow.error_codes import TRANSPORT_OPTION
from protoflow.errors import ConfigError
from protoflow.http_server.bodies import BodyError
from protoflow.transports.http.endpoint import TopicEndpoint
from protoflow.transports.http.options import HttpOptions
from protoflow.transports.http.requests import Answer, HttpRequest, Refusal, later
from protoflow.transports.http.server import Listener

_log = logging.getLogger("protoflow.transports.http")

#: Where a receiver listens: host and port. None: an application that is mounted passes requests.
Address = tuple[str, int] | None


class Receiver:
    """Passes requests to the endpoints of their paths.

    Args:
        address: where it listens.

    Attributes:
        expected: the paths that services will receive at, or do so already.
    """

    def __init__(self, address: Address) -> None:
        self.expected: set[str] = set()
        self._address = address
        self._users: set[object] = set()
        self._listener: Listener | None = None
        self._endpoints: dict[str, TopicEndpoint] = {}

    async def join(self, user: object, options: HttpOptions, scheme: str) -> None:
        """Adds a transport; the first one opens the port. Raises ConfigError."""
        self._users.add(user)
        if self._address is None or self._listener is not None:
            return
        self._listener = Listener(self.answer)
        try:
            await self._listener.start(*self._address, options, scheme)
        except BaseException:
            self._listener = None
            await self.leave(user)
            raise

    async def leave(self, user: object) -> None:
        """Removes a transport; the last one closes the port."""
        self._users.discard(user)
        if self._users:
            return
        _receivers.get(asyncio.get_running_loop(), {}).pop(self._address, None)
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop()

    def endpoint(self, wanted: TopicEndpoint) -> TopicEndpoint:
        """Returns the endpoint of a path, created if necessary. Raises ConfigError if another
        transport receives there in another way."""
        path = wanted.endpoint.path or ""
        found = self._endpoints.setdefault(path, wanted)
        hands_off = found.hands_off or wanted.hands_off
        if found.endpoint != wanted.endpoint or (found is not wanted and hands_off):
            raise ConfigError(
                f"transport: http: {path} receives {found.endpoint.topic} already, or with other"
                " secrets, or one of both has hand_off; set another path in endpoints",
                code=TRANSPORT_OPTION,
            )
        return found

    def remove(self, endpoint: TopicEndpoint) -> None:
        """Removes an endpoint."""
        self._endpoints.pop(endpoint.endpoint.path or "", None)

    async def answer(self, request: HttpRequest) -> Answer:
        """Answers a request."""
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            if not self._endpoints or request.path in self.expected:
                return later(503, "no service runs here now", 5)
            return Answer(404, "no topic is received here")
        try:
            return await endpoint.answer(request)
        except Refusal as refusal:
            return refusal.answer
        except BodyError as error:
            return Answer(error.status, str(error))
        except Exception:
            _log.exception("a request was not answered", extra={"topic": endpoint.endpoint.topic})
            return later(500, "the request was not handled", 5)


#: The receivers of this process: all transports of an event loop share those of an address.
_receivers: Final[MutableMapping[asyncio.AbstractEventLoop, dict[Address, Receiver]]] = (
    WeakKeyDictionary()
)


def receiver_of(address: Address) -> Receiver:
    """Returns the receiver of an address on this event loop, created if necessary."""
    receivers = _receivers.setdefault(asyncio.get_running_loop(), {})
    return receivers.setdefault(address, Receiver(address))

"""One topic of a receiver: who may send to it, and what happens to its messages."""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from protoflow.clock import Clock
from protoflow.http_server.bodies import announced_size
from protoflow.message import Message
from protoflow.transports.http import codec
from protoflow.transports.http.exchange import HANDLED, Exchange, answered
from protoflow.transports.http.handshake import permission
from protoflow.transports.http.options import Endpoint, HttpOptions
from protoflow.transports.http.requests import Answer, HttpRequest, Refusal, later
from protoflow.transports.http.room import Room, reserved
from protoflow.transports.http.signatures import Signer, signature_problem
from protoflow.transports.http.subscription import STOPPING, HttpSubscription

_BUSY: Final = later(429, "too many messages are not handled or stored yet", 1)
_STARTING: Final = later(503, "the service is starting", 1)


@dataclass(frozen=True, slots=True)
class Store:
    """Stores messages in another transport.

    Attributes:
        take: stores the messages of a request.
        room: what is being stored, with its limits.
    """

    take: Callable[[Sequence[Message]], Awaitable[Answer]]
    room: Room


class TopicEndpoint:
    """The endpoint of one topic.

    Args:
        endpoint: who may send, with the defaults filled in.
        options: the limits.
        clock: the time for signatures.
        store: stores messages; None: the request waits until they are handled.

    Attributes:
        hands_off: whether messages are stored.
        expected: the groups that must get every message.
        subscriptions: their members in this process.
    """

    def __init__(
        self, endpoint: Endpoint, options: HttpOptions, clock: Clock, store: Store | None = None
    ) -> None:
        self.endpoint = endpoint
        self.options = options
        self.expected: set[str] = set()
        self.subscriptions: list[HttpSubscription] = []
        self._clock = clock
        self.hands_off = store is not None
        self._store = store
        self._signers = [Signer(secret) for secret in endpoint.secrets]
        self._token = endpoint.token.reveal().encode() if endpoint.token else None

    def leave(self, subscriptions: Collection[HttpSubscription]) -> None:
        """Removes subscriptions, and their groups unless others are members of them."""
        self.subscriptions = [one for one in self.subscriptions if one not in subscriptions]
        self.expected &= {one.settings.group for one in self.subscriptions}

    async def answer(self, request: HttpRequest) -> Answer:
        """Answers a request. Raises Refusal or BodyError."""
        if request.method == "OPTIONS":
            return permission(request.headers, self.options)
        if request.method != "POST":
            raise Refusal(405, "send messages with POST", Allow="POST, OPTIONS")
        self._check_sender(request.headers)
        body = await self._read(request)
        if self._signers:
            problem = signature_problem(
                self._signers, request.headers, body, self._clock.now(), self.options.tolerance
            )
            if problem:
                raise Refusal(401, problem)
        messages = codec.decode(
            self.endpoint.topic, request.headers, body, self.options.headers,
            signed=bool(self._signers),
        )  # fmt: skip
        if not messages:
            return HANDLED  # an empty batch
        return await self._take(messages, len(body))

    async def _read(self, request: HttpRequest) -> bytes:
        """Returns the body. While it is read, it counts as a message of its announced size, so
        that the bodies in memory are bounded. Raises Refusal or BodyError."""
        limit = self.options.max_message_bytes
        announced = announced_size(request.headers.get("content-length"))
        size = limit if announced is None else min(announced, limit)
        rooms = self._rooms(self._members())
        _check_room(rooms, 1, size)
        with reserved(rooms, size):
            return await request.read(limit)

    async def _take(self, messages: Sequence[Message], size: int) -> Answer:
        members = self._members()
        _check_room(self._rooms(members), len(messages), size)
        if self._store is not None:
            return await self._store.take(messages)
        exchange, now = Exchange(), self._clock.now()
        for message in messages:
            weight = len(message.payload or b"") + len(message.key or b"")
            weight += sum(map(len, [*message.metadata, *message.metadata.values()]))
            for member in members:
                member.offer(message, weight, now, exchange)
        return await answered(exchange, self.options.answer_timeout)

    def _rooms(self, members: Sequence[HttpSubscription]) -> Sequence[Room]:
        return [member.room for member in members] if self._store is None else [self._store.room]

    def _members(self) -> Sequence[HttpSubscription]:
        """Returns one member of each group. Raises Refusal if a group has none."""
        if self._store is not None:
            return ()
        groups: dict[str, list[HttpSubscription]] = defaultdict(list)
        for subscription in self.subscriptions:
            if not subscription.stopped:
                groups[subscription.settings.group].append(subscription)
        if not groups or not self.expected <= groups.keys():
            raise Refusal.of(STOPPING if self._stopping else _STARTING)
        return [min(group, key=_load) for group in groups.values()]

    @property
    def _stopping(self) -> bool:
        return any(subscription.stopped for subscription in self.subscriptions)

    def _check_sender(self, headers: Mapping[str, str]) -> None:
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "send the body without a content encoding")
        if self._token is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            token = given.strip().encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(token, self._token) or scheme.lower() != "bearer":
                raise Refusal(401, "a bearer token is needed", WWW_Authenticate="Bearer")
        elif not self._signers and "origin" in headers:
            # Any page in a browser on this machine can send requests to it.
            raise Refusal(403, "pages of browsers may not send messages without a token")


def _check_room(rooms: Sequence[Room], messages: int, size: int) -> None:
    if not all(room.fits(messages, size) for room in rooms):
        raise Refusal.of(_BUSY)


def _load(subscription: HttpSubscription) -> int:
    return subscription.load

"""The consumers of one subscription at the server: read, created, unpinned."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence

from protoflow.errors import TransportError
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.jetstream.durables import subjects_of
from protoflow.transports.nats.jetstream.puller import PIN_GROUP, Puller
from protoflow.transports.nats.names import is_replays
from protoflow.transports.nats.wire.headers import FROM_A_SCHEDULE

_log = logging.getLogger("protoflow.transports.jetstream")
#: Seconds between two checks for missing consumers: one answer is no proof.
_ASKED_AGAIN = 1.0
#: Seconds between two checks for messages that left the stream unread.
_LOOK = 30.0
#: The limits of a stream that make it drop messages.
_LIMITS = ("max_age", "max_bytes", "max_msgs", "max_msgs_per_subject")


class Gone(TransportError):  # noqa: N818  the name describes a position
    """A position is lost permanently, and no option says how to continue."""


class Consumers:
    """Durable consumers, one for each shard and one for the group's own stream.

    Args:
        durables: their configurations, each with its stream.
        on_lost_position: `stop`, `earliest` or `latest`.
    """

    def __init__(
        self,
        api: API,
        settings: SubscriptionSettings,
        durables: Sequence[tuple[str, JSON]] = (),
        on_lost_position: str = "stop",
    ) -> None:
        self.connection = api.connection
        self.api = api
        self.settings = settings
        self._durables = durables
        self._lost = on_lost_position
        self._next_look: dict[Puller, float] = {}
        self._known: dict[Puller, int] = {}

    async def lent(self, puller: Puller) -> int:
        """Returns the number of unsettled messages of all processes. Raises TransportError."""
        return await self._number(puller, "num_ack_pending")

    async def waiting(self, puller: Puller) -> int:
        """Returns the number of waiting messages. Raises TransportError."""
        return await self._number(puller, "num_pending")

    async def recover(self, puller: Puller) -> None:
        """Creates a missing consumer again. Raises Gone if this is not allowed, and TransportError
        if it cannot be read or created now."""
        if await self._exists(puller):
            return  # the server was just not ready
        await self.connection.clock.sleep(_ASKED_AGAIN)
        if await self._exists(puller):
            return
        name = puller.consumer
        if self._lost == "stop" or self._is_foreign(puller):
            raise Gone(
                f"{self.settings.name}: the consumer {name} of stream {puller.stream} is gone, and"
                " with it the position; set on_lost_position"
            )
        await self._make(puller, "all" if self._lost == "earliest" or puller.own else "new")
        _log.warning(
            "jetstream: position lost",
            extra={"subscription": self.settings.name, "now": self._lost},
        )

    def is_due(self, puller: Puller, now: float) -> bool:
        """Whether the next check for messages that left the stream unread is due."""
        if puller.own or self._is_foreign(puller):
            return False
        return now >= self._next_look.get(puller, 0.0)

    def _is_foreign(self, puller: Puller) -> bool:
        """Whether a consumer belongs to other programs, so that only they may make it."""
        source = self.settings.source
        return source is not None and puller.stream == source.name

    async def check(self, puller: Puller) -> None:
        """Checks for messages that left the stream unread. Raises Gone if this ends the
        subscription, and TransportError if it is unknown now."""
        self._next_look[puller] = self.connection.clock.monotonic() + _LOOK
        name, stream = puller.consumer, puller.stream
        places = await self._missed(stream, name)
        if not places or places == self._known.get(puller):
            return
        self._known[puller] = places
        what = (
            f"{places} messages of stream {stream} were removed (max_age, max_bytes) before "
            f"consumer {name} read them"
        )
        if self._lost == "stop":
            raise Gone(f"{self.settings.name}: {what}; set on_lost_position")
        _log.warning(
            "jetstream: position lost",
            extra={"subscription": self.settings.name, "now": self._lost, "detail": what},
        )
        if self._lost == "latest":
            await self.api.delete_consumer(stream, name)
            await self._make(puller, "new")

    async def left(self, pullers: Sequence[Puller]) -> None:
        """Lets another process have the shards immediately."""
        # A server keeps a recent request although its client has left, and would assign the next
        # message to it for a whole lease. A new request makes the server check for clients.
        await asyncio.gather(*(self.api.consumer(one.stream, one.consumer) for one in pullers))
        for puller in pullers:
            if puller.pin:
                subject = f"CONSUMER.UNPIN.{puller.stream}.{puller.consumer}"
                await self.api.call(subject, {"group": PIN_GROUP})

    async def _exists(self, puller: Puller) -> bool:
        return await self.api.consumer(puller.stream, puller.consumer) is not None

    async def _make(self, puller: Puller, policy: str) -> None:
        for stream, config in self._durables:
            if (stream, config["durable_name"]) == (puller.stream, puller.consumer):
                wanted = {**config, "deliver_policy": policy}
                await self.api.create_consumer(stream, wanted)

    async def _number(self, puller: Puller, name: str) -> int:
        info = await self.api.consumer(puller.stream, puller.consumer)
        return 0 if info is None else int(info[name])

    async def _missed(self, stream: str, durable: str) -> int:
        """Returns how many messages of a limited stream were removed before a group read them.

        The sequences show it: the first sequence in the stream is greater than the next expected
        one. Streams with several shards are not checked, because the sequences between belong to
        other shards. A gap before a delayed message does not count, because its schedule was
        removed with it.
        """
        info = await self.api.stream(stream)
        if info is None or not any((info["config"].get(limit) or 0) > 0 for limit in _LIMITS):
            return 0
        found = await self.api.consumer(stream, durable)
        if found is None:
            return 0
        subject = subjects_of(found["config"])[0]
        if any(
            other != subject and ".=wait." not in other and not is_replays(other)
            for other in info["config"]["subjects"]
        ):
            return 0
        read = max(found["delivered"]["stream_seq"], found["ack_floor"]["stream_seq"])
        places = int(info["state"]["first_seq"]) - 1 - int(read)
        if places <= 0:
            return 0
        next_one = await self.api.next_message(stream, read + 1, subject)
        headers = base64.b64decode(next_one.get("hdrs", "")) if next_one is not None else b""
        return 0 if FROM_A_SCHEDULE in headers else places


class Ephemeral(Consumers):
    """The only consumer of a process that is in no group.

    Args:
        config: its configuration.
        stream: its stream.
    """

    def __init__(self, api: API, settings: SubscriptionSettings, config: JSON, stream: str) -> None:
        super().__init__(api, settings)
        self._config = config
        self._stream = stream

    async def create(self) -> str:
        """Creates the consumer and returns its name. Raises APIError."""
        return str((await self.api.create_consumer(self._stream, self._config))["name"])

    async def recover(self, puller: Puller) -> None:
        """Starts anew after a long outage."""
        if not await self._exists(puller):
            puller.consume(await self.create())

    def is_due(self, puller: Puller, now: float) -> bool:
        """Returns False, because it has no durable position."""
        return False

    async def check(self, puller: Puller) -> None:
        """Nothing."""

    async def left(self, pullers: Sequence[Puller]) -> None:
        """Removes the consumer."""
        await self.api.delete_consumer(self._stream, pullers[0].consumer)

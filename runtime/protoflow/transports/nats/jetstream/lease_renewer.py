"""Renews the leases of a subscription, and gives back lost messages.

JetStream redelivers a message that was given back after newer ones. So all messages of an ordered
consumer are held and given back together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

from protoflow.errors import TransportError
from protoflow.transport.interface import SubscriptionListener
from protoflow.transports.nats.jetstream.buffers import Lease
from protoflow.transports.nats.jetstream.consumers import Consumers, Gone
from protoflow.transports.nats.jetstream.leases import NAK, Leases, encode_command
from protoflow.transports.nats.jetstream.puller import Puller

_log = logging.getLogger("protoflow.transports.jetstream")
_POLL = 0.1
_Work = Coroutine[Any, Any, None]  # Any: it sends nothing


class LeaseRenewer:
    """The leases of a subscription, and the background work besides its messages.

    Args:
        consumers: manages the consumers at the server.
        pullers: the sources of messages.
        fail: called when a position is lost permanently.
    """

    def __init__(
        self,
        consumers: Consumers,
        listener: SubscriptionListener,
        pullers: Sequence[Puller],
        fail: Callable[[TransportError], None],
    ) -> None:
        self._connection = consumers.connection
        self._settings = consumers.settings
        self.leases = Leases(self._settings, self._connection.write)
        #: Set when messages may be available to hand out.
        self.wake = asyncio.Event()
        self.is_stopped = False
        #: Messages that arrive now may have been delayed for longer than a lease.
        self.in_doubt = False
        self._swept = 0.0
        self._listener = listener
        self._consumers = consumers
        self._pullers = pullers
        self._fail = fail
        self._busy: set[tuple[Puller, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Starts no new work, and ends the running work."""
        self.is_stopped = True
        self.wake.set()
        for task in self._tasks:
            task.cancel()

    def doubt(self) -> None:
        """Handles a long silence, because this process stopped or the network was blocked. Messages
        in flight may belong to another process now, so none is accepted until the server has
        answered again. The server redelivers unacknowledged messages."""
        if self.in_doubt or self.is_stopped or not self._connection.is_connected:
            return
        self.in_doubt = True
        for puller in self._pullers:
            puller.close()
        self.run(self._be_certain())

    async def _be_certain(self) -> None:
        with contextlib.suppress(TransportError):
            await self._connection.flush()
        self.in_doubt = False
        for puller in self._pullers:
            if not puller.open:
                self.run(self.open(puller))

    def sweep(self, now: float) -> None:
        """Reports lost messages. All messages of an ordered consumer are given back together,
        because later ones would otherwise overtake."""
        if self._swept and now - self._swept > self._settings.lease / 2:
            self.doubt()
        self._swept = now
        lost = self.leases.sweep(now, connected=self._connection.is_connected)
        if not lost:
            return
        sources = {lease.source for lease in lost if lease.source.window}
        for puller in [puller for puller in self._pullers if puller in sources]:
            rest = [lease for lease in self.leases if lease.source is puller]
            self.give_back(rest)
            lost += rest
            puller.close()
            if not self.is_stopped:
                self.run(self.open(puller))
        for lease in lost:
            if lease.handed:
                lease.source.buffer.settled(lease)
        if handed := [lease.delivery for lease in lost if lease.handed]:
            self._listener.deliveries_lost(handed)

    def run(self, work: _Work) -> None:
        """Runs the background work until `stop`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def once(self, puller: Puller, work: Callable[[Puller], Awaitable[None]]) -> None:
        """Runs a task for a consumer unless it is already running. A failed task is repeated at the
        next occasion."""
        if (puller, work.__name__) in self._busy:
            return
        self._busy.add((puller, work.__name__))

        async def do() -> None:
            try:
                await work(puller)
            except Gone as error:
                self._fail(error)
            except TransportError as error:
                _log.debug("jetstream: a request failed", extra={"error": str(error)})
            finally:
                self._busy.discard((puller, work.__name__))

        self.run(do())

    async def open(self, puller: Puller) -> None:
        """Opens a puller once this process holds every unsettled message of its consumer. Older
        messages are redelivered after newer ones, so their order is only known then."""
        pin = puller.pin
        while pin and puller.pin == pin and not puller.open:
            with contextlib.suppress(TransportError):
                if await self._consumers.lent(puller) <= puller.held:
                    puller.open = True
                    self.wake.set()
                    return
            await asyncio.sleep(_POLL)

    async def move(self, puller: Puller) -> None:
        """Handles the move of a consumer to another process: its messages are settled or given
        back, and then this process competes again."""
        await self._listener.shards_revoked([puller.shard], self._settings.rebalance_drain)
        self.give_back([lease for lease in self.leases if lease.source is puller])
        puller.compete()

    def give_back(self, leases: Iterable[Lease]) -> None:
        """Gives a message back for any process, including this one. If another process may hold it,
        nothing is sent: the server would take the message from that process and deliver it
        twice."""
        for lease in leases:
            if self.leases.release(lease):
                lease.source.buffer.settled(lease)
                if not self.is_over(lease):
                    self._connection.write(encode_command(lease.reply, NAK))

    def is_over(self, lease: Lease) -> bool:
        """Whether the lease of a message has ended."""
        return self._connection.clock.monotonic() - lease.renewed >= self._settings.lease

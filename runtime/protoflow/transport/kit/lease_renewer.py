"""Renews the leases of a subscription, and gives back messages without a running handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from protoflow.clock import Clock
from protoflow.contract.spec import Ordering
from protoflow.errors import ProtoflowError
from protoflow.message import Delivery, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transport.kit.leases import LeaseTable
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.settlement_batch import released

_log = logging.getLogger("protoflow.transport.kit")


class LeaseRenewer:
    """One timer for all leases of a subscription, at a third of the lease.

    Args:
        lost: called with deliveries whose leases ended, or were given up after `max_hold`.
        rest: called with the seconds for which no delivery may be handed out: leases of an ordered
            group have ended by the local clock, but the broker may still hold them.
    """

    def __init__(
        self,
        source: QueueSource,
        settings: SubscriptionSettings,
        clock: Clock,
        leases: LeaseTable,
        lost: Callable[[Sequence[Delivery]], None],
        rest: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        #: Deliveries that could not be given back yet.
        self.owed: list[Settlement] = []
        self._source = source
        self._settings = settings
        self._clock = clock
        self._leases = leases
        self._lost = lost
        self._rest = rest
        self._interval = (settings.lease if source.lease is None else source.lease) / 3
        self._loop = asyncio.get_running_loop()
        self._sweeping: asyncio.Task[None] | None = None
        self._ended = False
        self._timer = self._loop.call_later(self._interval, self._start)

    def end(self) -> None:
        """Stops renewing. Idempotent."""
        self._ended = True
        self._timer.cancel()

    async def wait(self) -> None:
        """Waits for the end of the current sweep."""
        if self._sweeping is not None:
            await asyncio.wait([self._sweeping])

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Gives back deliveries without a running handler; failures are repeated at every sweep."""
        leases = self._leases
        self.owed += [released(each) for each in deliveries if leases.release(each)]
        owed = [each for each in self.owed if each.delivery.receipt not in leases.held]
        self.owed = []
        if not owed:
            return
        try:
            answers = await asyncio.ensure_future(self._source.settle(owed))
            unknown = SettleResult.UNKNOWN
            self.owed += [
                each for each, answer in zip(owed, answers, strict=True) if answer is unknown
            ]
        except Exception as error:
            self.owed += owed
            self._warn("messages were not given back yet", error)

    def _start(self) -> None:
        self._sweeping = self._loop.create_task(self._sweep())

    async def _sweep(self) -> None:
        now, leases, renew = self._clock.monotonic(), self._leases, self._source.renew
        try:
            if renew is not None:
                due: list[Delivery] = []
                if self._source.expires:
                    expired: list[Delivery] = []
                    leases.sweep(now, due.extend, expired.extend)
                    if expired and self._settings.ordering is not Ordering.NONE:
                        # the table ends leases early by at most this much
                        self._rest(self._interval / 2)
                    await self._end(expired)
                    due = [delivery for delivery in due if leases.holds(delivery)]
                gone = await renew(due)
                leases.renewed(due, now)
                await self._end([delivery for delivery in gone if leases.release(delivery)])
            await self._end(leases.overdue(now))
        except Exception as error:  # whatever the error is, the leases must be renewed again
            self._warn("leases were not renewed", error)
        if not self._ended:
            self._timer = self._loop.call_later(self._interval, self._start)

    async def _end(self, ended: Sequence[Delivery]) -> None:
        """Reports ended leases. Other deliveries of their lanes are given back with them, so that
        they do not overtake."""
        if not ended:
            return
        also = self._of_their_lanes(ended)
        self._lost([*ended, *also])
        await self.give_back([*ended, *also])  # the deliveries that are still held

    def _of_their_lanes(self, ended: Sequence[Delivery]) -> list[Delivery]:
        ordering = self._settings.ordering
        if ordering is Ordering.NONE:
            return []

        def lane(delivery: Delivery) -> object:
            return delivery.message.key if ordering is Ordering.PER_KEY else delivery.shard

        lanes = {lane(delivery) for delivery in ended} - {None, b""}
        these = {*ended}
        return [
            each for each in self._leases.held.values() if lane(each) in lanes and each not in these
        ]

    def _warn(self, text: str, error: Exception) -> None:
        known = isinstance(error, ProtoflowError)
        _log.warning(
            text,
            extra={"subscription": self._settings.name, "error": str(error)},
            exc_info=None if known else error,
        )

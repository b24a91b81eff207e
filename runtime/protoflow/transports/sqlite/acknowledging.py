"""The job of settling: several calls of one subscription, each with its future."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence

from protoflow.errors import ProtoflowError
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.spec import Ordering
from protoflow.transports.sqlite.publishing import Outgoing
from protoflow.transports.sqlite.settling import GivenBack, Settling

Results = Sequence[SettleResult]


class Settlements:
    """Takes deliveries out of `held`, and puts them back if the database fails.

    `settled` is told what was done: the topics that were published to, and whether
    something may be claimed now that could not be claimed before.
    """

    writes = True

    def __init__(
        self,
        settling: Settling,
        held: dict[int, Delivery],
        settled: Callable[[set[str], bool], None],
        lost: Callable[[], None],
    ) -> None:
        self.settling = settling
        self._held = held
        self._settled = settled
        self._lost = lost
        self._taken: list[Delivery] = []
        self._calls: list[tuple[asyncio.Future[Results], list[SettleResult]]] = []

    def add(
        self, settlements: Sequence[Settlement], now: float, limit: int
    ) -> asyncio.Future[Results]:
        """Adds settlements; those that cannot be are answered already."""
        future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        held, settling, taken = self._held, self.settling, self._taken
        ordered = settling.group.ordering is not Ordering.NONE
        results = []
        for settlement in settlements:
            delivery = settlement.delivery
            sequence: int = delivery.receipt
            if held.get(sequence) is not delivery:
                results.append(SettleResult.LOST)
                continue
            if settlement.outputs and not self._publish(settlement, now, limit):
                results.append(SettleResult.REFUSED)
                continue
            del held[sequence]
            taken.append(delivery)
            results.append(SettleResult.DONE)
            if settlement.action is not Action.ACK:
                self._give_back(settlement, now)
                continue
            settling.acked.append(sequence)
            if ordered and (lane := settling.group.lane(delivery.message.key)) is not None:
                settling.lanes.add(lane)
        self._calls.append((future, results))
        return future

    @property
    def answers(self) -> list[SettleResult]:
        """What each settlement comes to if the transaction is committed."""
        return [result for _, results in self._calls for result in results]

    def run(self, connection: sqlite3.Connection) -> bool:
        """Settles in the thread."""
        return self.settling.run(connection)

    def done(self, result: bool) -> None:
        """Answers who waits; a lost session takes everything with it."""
        for future, results in self._calls:
            if not result:
                results = [
                    SettleResult.LOST if each is SettleResult.DONE else each for each in results
                ]
            if not future.done():
                future.set_result(results)
        if not result:
            self._lost()
            return
        settling = self.settling
        topics = set(settling.outgoing.topics) if settling.outgoing else set()
        self._settled(topics, bool(settling.lanes or settling.given_back))

    def failed(self, error: ProtoflowError) -> None:
        """Nothing was settled: everything is held as before."""
        self.restore()
        for future, _ in self._calls:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody need wait for it

    def restore(self) -> None:
        """Holds again what was to be settled."""
        self._held |= {delivery.receipt: delivery for delivery in self._taken}

    def _publish(self, settlement: Settlement, now: float, limit: int) -> bool:
        outgoing = Outgoing()
        if outgoing.add(settlement.outputs, now, limit):
            return False
        if self.settling.outgoing is None:
            self.settling.outgoing = outgoing
        else:
            self.settling.outgoing.merge(outgoing)
        return True

    def _give_back(self, settlement: Settlement, now: float) -> None:
        delivery = settlement.delivery
        nack = settlement.action is Action.NACK
        self.settling.given_back.append(
            GivenBack(
                delivery.receipt,
                self.settling.group.lane(delivery.message.key),
                due=now + settlement.delay if nack and settlement.delay > 0 else 0.0,
                failures=settlement.failures,
                first_failure=settlement.first_failure,
                uncounted=0 if nack else 1,
            )
        )

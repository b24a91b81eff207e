"""The job of settling: several calls of one subscription, each with its future."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protoflow.errors import ProtoflowError
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.spec import Ordering
from protoflow.transports.sqlite.publishing import Outgoing, deserted_topics
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.settling import GivenBack, Settling

Results = Sequence[SettleResult]


@dataclass(slots=True, eq=False)
class _Checked:
    """An acknowledgement whose outputs need somebody who consumes them."""

    results: list[SettleResult]
    index: int
    delivery: Delivery
    outgoing: Outgoing


class Settlements:
    """Takes deliveries out of `held`, and puts them back if the database fails.

    `settled` is told what was done: the topics that were published to, and whether
    something may be claimed now that could not be claimed before. `strict` is whether an
    output to a topic that nobody consumes is refused.
    """

    writes = True

    def __init__(
        self,
        settling: Settling,
        held: dict[int, Delivery],
        settled: Callable[[set[str], bool], None],
        lost: Callable[[], None],
        recent: Recent | None,
        *,
        strict: bool,
    ) -> None:
        self.settling = settling
        self._recent = recent
        self._strict = strict
        self._checked: list[_Checked] = []
        self._refused: list[_Checked] = []
        self._held = held
        self._settled = settled
        self._lost = lost
        self._topics: set[str] = set()
        self._taken: list[Delivery] = []
        self._calls: list[tuple[asyncio.Future[Results], list[SettleResult]]] = []

    def add(
        self, settlements: Sequence[Settlement], now: float, limit: int
    ) -> asyncio.Future[Results]:
        """Adds settlements; those that cannot be are answered already."""
        future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        held, settling, taken = self._held, self.settling, self._taken
        ordered = settling.group.ordering is not Ordering.NONE
        results: list[SettleResult] = []
        for settlement in settlements:
            delivery = settlement.delivery
            sequence: int = delivery.receipt
            if held.get(sequence) is not delivery:
                results.append(SettleResult.LOST)
                continue
            if settlement.outputs and not self._publish(settlement, results, now, limit):
                results.append(SettleResult.REFUSED)
                continue
            del held[sequence]
            taken.append(delivery)
            results.append(SettleResult.DONE)
            if settlement.action is not Action.ACK:
                self._give_back(settlement, now)
            elif not (self._strict and settlement.outputs):
                settling.acked.append(sequence)
                if ordered:
                    settling.add_lane(delivery)
        self._calls.append((future, results))
        return future

    @property
    def answers(self) -> list[SettleResult]:
        """What each settlement comes to if the transaction is committed."""
        return [result for _, results in self._calls for result in results]

    @property
    def refused(self) -> bool:
        """Whether an output was refused when the job ran."""
        return bool(self._refused)

    def run(self, connection: sqlite3.Connection) -> bool:
        """Settles in the thread."""
        if not self._checked:
            return self.settling.run(connection)
        settling = self.settling.copy()
        settling.outgoing = Outgoing(self._recent)
        topics = {topic for each in self._checked for topic in each.outgoing.topics}
        deserted = deserted_topics(connection, topics)
        self._refused = [each for each in self._checked if deserted & each.outgoing.topics.keys()]
        for each in self._checked:
            if each not in self._refused:
                settling.acked.append(each.delivery.receipt)
                settling.add_lane(each.delivery)
                settling.add_outgoing(each.outgoing)
        self._topics = settling.topics
        return settling.run(connection)

    def done(self, result: bool) -> None:
        """Answers who waits; a lost session takes everything with it."""
        for each in self._refused:
            each.results[each.index] = SettleResult.REFUSED
            if result:
                self._held[each.delivery.receipt] = each.delivery
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
        topics = self._topics if self._checked else settling.topics
        self._settled(
            topics, settling.group.ordering is not Ordering.NONE or bool(settling.given_back)
        )

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

    def _publish(
        self, settlement: Settlement, results: list[SettleResult], now: float, limit: int
    ) -> bool:
        outgoing = Outgoing(self._recent)
        if outgoing.add(settlement.outputs, now, limit):
            return False
        if self._strict:
            checked = _Checked(results, len(results), settlement.delivery, outgoing)
            self._checked.append(checked)
        else:
            self.settling.add_outgoing(outgoing)
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

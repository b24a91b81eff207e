"""The job of settling: several calls of one subscription, each with its future."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from protoflow.contract.spec import Ordering
from protoflow.errors import ProtoflowError
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transports.sqlite.publishing import Limits, Outgoing, deserted_topics
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.settling import GivenBack, Settling, acknowledged

Results = Sequence[SettleResult]


@dataclass(slots=True, eq=False)
class _Checked:
    """An acknowledgement with outputs that needs a look in the transaction: whether somebody
    consumes them, and whether all of it was written before and only the answer got lost."""

    results: list[SettleResult]
    index: int
    deliveries: list[Delivery]
    outgoing: Outgoing
    doubtful: bool
    sequences: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.sequences = [delivery.receipt for delivery in self.deliveries]


class Settlements:
    """Takes deliveries out of `held`, and puts them back if the database fails.

    `settled` is told what was done: the topics that were published to, and whether
    something may be claimed now that could not be claimed before. `strict` is whether an
    output to a topic that nobody consumes is refused. `doubtful` are the deliveries whose
    acknowledgement failed: a failed commit may have been written all the same.

    The receipt of what is settled becomes the action, so that a repetition is answered as before.
    """

    writes = True

    def __init__(
        self,
        settling: Settling,
        held: dict[int, Delivery],
        doubtful: set[int],
        settled: Callable[[set[str], bool], None],
        lost: Callable[[], None],
        recent: Recent | None,
        *,
        strict: bool,
    ) -> None:
        self.settling = settling
        #: What is being settled.
        self.taken: list[tuple[Delivery, Action]] = []
        self.finished = False
        self._recent = recent
        self._strict = strict
        self._checked: list[_Checked] = []
        self._refused: list[_Checked] = []
        self._published: list[Delivery] = []
        self._held = held
        self._doubtful = doubtful
        self._settled = settled
        self._lost = lost
        self._topics: set[str] = set()
        self._calls: list[tuple[asyncio.Future[Results], list[SettleResult]]] = []

    def add(
        self, settlements: Sequence[Settlement], now: float, limits: Limits
    ) -> asyncio.Future[Results]:
        """Adds settlements; those that cannot be are answered already."""
        future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        held, settling, taken = self._held, self.settling, self.taken
        careful = self._strict or bool(self._doubtful)
        ordered = settling.group.ordering is not Ordering.NONE
        results: list[SettleResult] = []
        for settlement in settlements:
            delivery, action = settlement.delivery, settlement.action
            sequence: int = delivery.receipt
            if held.get(sequence) is not delivery:
                results.append(SettleResult.DONE if sequence is action else SettleResult.LOST)
                continue
            if settlement.others or (settlement.outputs and careful):
                results.append(self._add_large(settlement, results, now, limits))
                continue
            if settlement.outputs:
                outgoing = Outgoing(self._recent)
                if outgoing.add(settlement.outputs, now, limits):
                    results.append(SettleResult.REFUSED)
                    continue
                settling.add_outgoing(outgoing)
                self._published.append(delivery)
            del held[sequence]
            taken.append((delivery, action))
            results.append(SettleResult.DONE)
            if action is not Action.ACK:
                self._give_back(settlement, now)
            else:
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
        if self.settling.outgoing is not None:
            settling.outgoing.merge(self.settling.outgoing)
        topics = {topic for each in self._checked for topic in each.outgoing.topics}
        deserted = deserted_topics(connection, topics) if self._strict else set()
        self._refused = [each for each in self._checked if deserted & each.outgoing.topics.keys()]
        for each in self._checked:
            if each in self._refused:
                continue
            if each.doubtful and acknowledged(
                connection, settling.group, settling.session, each.sequences
            ):
                continue
            settling.acknowledge(each.deliveries)
            settling.outgoing.merge(each.outgoing)
        self._topics = settling.topics
        return settling.run(connection)

    def done(self, result: bool) -> None:
        """Answers who waits; a lost session takes everything with it."""
        self.finished = True
        if result:
            for delivery, action in self.taken:
                delivery.receipt = action
        for each in self._refused:
            each.results[each.index] = SettleResult.REFUSED
            if result:
                for delivery, sequence in zip(each.deliveries, each.sequences, strict=True):
                    delivery.receipt = sequence
                    self._held[sequence] = delivery
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
        for each in self._checked:
            self._doubtful.difference_update(each.sequences)
        settling = self.settling
        topics = self._topics if self._checked else settling.topics
        self._settled(
            topics, settling.group.ordering is not Ordering.NONE or bool(settling.given_back)
        )

    def failed(self, error: ProtoflowError) -> None:
        """Nothing was settled, as far as can be told: everything is held as before."""
        self.finished = True
        self.restore()
        self._doubtful.update(delivery.receipt for delivery in self._published)
        for future, _ in self._calls:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody need wait for it

    def restore(self) -> None:
        """Holds again what was to be settled."""
        self._held |= {delivery.receipt: delivery for delivery, _ in self.taken}

    def _add_large(
        self, settlement: Settlement, results: list[SettleResult], now: float, limits: Limits
    ) -> SettleResult:
        """Adds an acknowledgement with outputs, or of several deliveries: all or nothing."""
        held = self._held
        deliveries = list(dict.fromkeys((settlement.delivery, *settlement.others)))
        if any(held.get(delivery.receipt) is not delivery for delivery in deliveries):
            return SettleResult.LOST
        outgoing = Outgoing(self._recent)
        if outgoing.add(settlement.outputs, now, limits):
            return SettleResult.REFUSED
        doubtful = any(delivery.receipt in self._doubtful for delivery in deliveries)
        if settlement.outputs and (self._strict or doubtful):
            checked = _Checked(results, len(results), deliveries, outgoing, doubtful)
            self._checked.append(checked)
        else:
            self.settling.acknowledge(deliveries)
            self.settling.add_outgoing(outgoing)
        if settlement.outputs:
            self._published += deliveries
        for delivery in deliveries:
            del held[delivery.receipt]
            self.taken.append((delivery, settlement.action))
        return SettleResult.DONE

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

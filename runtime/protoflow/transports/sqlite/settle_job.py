"""The job of settling: several calls of one subscription in one transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from protoflow.contract.spec import Ordering
from protoflow.errors import ProtoflowError
from protoflow.message import Action, Settlement, SettleResult
from protoflow.transports.sqlite import settling
from protoflow.transports.sqlite.publishing import Limits, Outgoing, unsubscribed_topics
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.settling import GivenBack
from protoflow.transports.sqlite.topics import Session

Results = Sequence[SettleResult]
_receipt = attrgetter("delivery.receipt")
#: The features of a settlement that is more than one plain ACK; a plain ACK is 0.
_UNUSUAL = attrgetter("action"), attrgetter("outputs"), attrgetter("others")


@dataclass(slots=True, eq=False)
class _Checked:
    """An acknowledgement with outputs that is checked in the transaction: whether each output has a
    subscriber, and whether it was written before but the answer was lost."""

    results: list[SettleResult]
    index: int
    sequences: list[int]
    lanes: set[bytes]
    outgoing: Outgoing
    doubtful: bool


@dataclass(slots=True)
class _Work:
    """The changes to write."""

    acked: list[int] = field(default_factory=list)
    lanes: set[bytes] = field(default_factory=set)
    outgoing: Outgoing | None = None

    def add(self, sequences: list[int], lanes: set[bytes], outgoing: Outgoing | None) -> None:
        """Adds acknowledgements and outputs."""
        self.acked += sequences
        self.lanes |= lanes
        if self.outgoing is None:
            self.outgoing = outgoing
        elif outgoing is not None:
            self.outgoing.merge(outgoing)


class SettleJob:
    """Settles messages of a session; settlements can be added until the thread takes the job.

    Args:
        doubtful: the rows whose acknowledgement with outputs failed: a failed commit may have been
            written.
        settled: called with the topics of the outputs, and whether more messages may be claimed
            now.
        lost: called if the session is lost with all its messages.
        recent: keeps outputs for claims of this process.
        require_subscriber: whether an output to a topic without a group is refused.
    """

    writes = True

    def __init__(
        self,
        session: Session,
        doubtful: set[int],
        settled: Callable[[set[str], bool], None],
        lost: Callable[[], None],
        recent: Recent | None,
        *,
        require_subscriber: bool,
    ) -> None:
        self._session = session
        self._group = session.group
        self._ordered = session.group.ordering is not Ordering.NONE
        self._recent = recent
        self._require_subscriber = require_subscriber
        self._doubtful = doubtful
        self._settled = settled
        self._lost = lost
        self._work = _Work()
        self._given_back: list[GivenBack] = []
        self._checked: list[_Checked] = []
        self._refused: list[_Checked] = []
        self._published: list[int] = []
        self._topics: set[str] = set()
        self._calls: list[tuple[asyncio.Future[Results], list[SettleResult]]] = []
        self._now = 0.0

    def add(
        self, settlements: Sequence[Settlement], now: float, limits: Limits
    ) -> asyncio.Future[Results]:
        """Adds settlements of held deliveries."""
        future: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        self._now = now
        acked, ordered = self._work.acked, self._ordered
        results = [SettleResult.DONE] * len(settlements)
        self._calls.append((future, results))
        if not (ordered or any(any(map(unusual, settlements)) for unusual in _UNUSUAL)):
            acked += map(_receipt, settlements)  # this is the usual case, without a Python loop
            return future
        for index, settlement in enumerate(settlements):
            if settlement.action is not Action.ACK:
                self._give_back(settlement)
            elif settlement.outputs or settlement.others:
                self._add_large(settlement, results, index, limits)
            else:
                acked.append(settlement.delivery.receipt)
                if ordered:
                    self._work.lanes |= self._lanes(settlement)
        return future

    @property
    def answers(self) -> list[SettleResult]:
        """Returns the result of each settlement if the transaction is committed."""
        return [result for _, results in self._calls for result in results]

    def run(self, connection: sqlite3.Connection) -> bool:
        """Settles everything. If the session is lost, does nothing and returns False.

        A session holds all its rows until it ends, so only its own row must be checked.
        """
        group, session = self._group, self._session.id
        if not settling.exists(connection, session):
            return False
        work = self._checked_work(connection) if self._checked else self._work
        self._topics = set(work.outgoing.topics) if work.outgoing is not None else set()
        if work.outgoing is not None:
            work.outgoing.write(connection)
        if work.acked:
            settling.acknowledge(connection, group, session, work.acked)
        for item in self._given_back:
            settling.give_back(connection, group, session, item)
        freed = {item.lane for item in self._given_back if item.lane is not None}
        settling.order_lanes(connection, group.id, freed, self._now)
        if work.lanes:
            settling.unblock(connection, group, work.lanes, self._now)
        for each in self._checked:
            each.results[each.index] = SettleResult.DONE
        for each in self._refused:
            each.results[each.index] = SettleResult.REFUSED
        return True

    def done(self, result: bool) -> None:
        """Answers the calls; a lost session loses all its messages."""
        if result:
            for each in self._checked:
                self._doubtful.difference_update(each.sequences)
        for future, results in self._calls:
            if not future.done():
                future.set_result(results if result else [SettleResult.LOST] * len(results))
        if result:
            self._settled(self._topics, self._ordered or bool(self._given_back))
        else:
            self._lost()

    def failed(self, error: ProtoflowError) -> None:
        """Fails the calls, because probably nothing was settled."""
        self._doubtful.update(self._published)
        for future, _ in self._calls:
            if not future.done():
                future.set_exception(error)
                future.exception()  # its reader may have ended

    def _checked_work(self, connection: sqlite3.Connection) -> _Work:
        """Returns the changes to write; a repetition after a rollback needs the same job."""
        work = _Work(outgoing=Outgoing(self._recent))
        work.add(self._work.acked, self._work.lanes, self._work.outgoing)
        topics = {topic for each in self._checked for topic in each.outgoing.topics}
        missing = unsubscribed_topics(connection, topics) if self._require_subscriber else set()
        self._refused = [each for each in self._checked if missing & each.outgoing.topics.keys()]
        for each in self._checked:
            if each in self._refused:
                continue
            if each.doubtful and settling.acknowledged(
                connection, self._group, self._session.id, each.sequences
            ):
                continue
            work.add(each.sequences, each.lanes, each.outgoing)
        return work

    def _add_large(
        self, settlement: Settlement, results: list[SettleResult], index: int, limits: Limits
    ) -> None:
        """Adds an acknowledgement with outputs or several deliveries, which is all or nothing."""
        outgoing = Outgoing(self._recent)
        if outgoing.add(settlement.outputs, self._now, limits):
            results[index] = SettleResult.REFUSED
            return
        deliveries = dict.fromkeys((settlement.delivery, *settlement.others))
        sequences = [delivery.receipt for delivery in deliveries]
        lanes = self._lanes(settlement)
        doubtful = not self._doubtful.isdisjoint(sequences)
        if settlement.outputs:
            self._published += sequences
            if self._require_subscriber or doubtful:
                self._checked.append(_Checked(results, index, sequences, lanes, outgoing, doubtful))
                return
        self._work.add(sequences, lanes, outgoing)

    def _lanes(self, settlement: Settlement) -> set[bytes]:
        """Returns the lanes in which an acknowledgement may make messages available."""
        keys = [settlement.delivery.message.key, *(each.message.key for each in settlement.others)]
        return {lane for key in keys if (lane := self._group.lane(key)) is not None}

    def _give_back(self, settlement: Settlement) -> None:
        delivery = settlement.delivery
        nack = settlement.action is Action.NACK
        self._given_back.append(
            GivenBack(
                delivery.receipt,
                self._group.lane(delivery.message.key),
                due=self._now + settlement.delay if nack and settlement.delay > 0 else 0.0,
                failures=settlement.failures,
                first_failure=settlement.first_failure,
                uncounted=0 if nack else 1,
            )
        )

"""Settles deliveries: their offsets are finished after their outputs, or handed out again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from protoflow.error_codes import UNCONFIRMED
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.partition_flow import PartitionFlow
from protoflow.transports.kafka.ready_deliveries import ReadyDeliveries
from protoflow.transports.kafka.transactions import Transactions

#: Publishes messages outside of transactions.
Submit: TypeAlias = Callable[[Sequence[Message]], asyncio.Future[Sequence[PublishError | None]]]
#: The number of given-back messages after which the finished ones are forgotten.
_REMEMBERED = 4096
_ACK = Action.ACK
_DONE = SettleResult.DONE
_LOST = SettleResult.LOST
_UNSURE = PublishError("kafka: publishing ended without an answer", code=UNCONFIRMED)


class _Results:
    """The results of one `settle`; some of them arrive later."""

    def __init__(self, size: int) -> None:
        self.future: asyncio.Future[Sequence[SettleResult]]
        self.future = asyncio.get_running_loop().create_future()
        self._results = [_DONE] * size
        self._open = 1  # pending until all settlements are examined

    def set(self, index: int, result: SettleResult) -> None:
        """Sets the result of one settlement if it is not DONE."""
        self._results[index] = result

    def expect(self) -> None:
        """Waits for one more call of `complete`."""
        self._open += 1

    def complete(self) -> None:
        """Counts an expected result."""
        self._open -= 1
        if not self._open and not self.future.done():
            self.future.set_result(self._results)


class KafkaSettler:
    """Settles the deliveries of one subscription."""

    def __init__(
        self,
        ready: ReadyDeliveries,
        flow_control: PartitionFlow,
        submit: Submit,
        transactions: Transactions | None,
    ) -> None:
        self._ready = ready
        self._flow_control = flow_control
        self._submit = submit
        self._transactions = transactions
        self._stopped = False
        #: The messages that were given back, since a settlement may be repeated.
        self._handed_again: dict[tuple[Partition, int], Delivery] = {}
        #: The messages that wait in memory before they are handed out again.
        self.waiting: dict[Delivery, asyncio.TimerHandle] = {}

    def stop(self) -> None:
        """Stops handing out messages again."""
        self._stopped = True

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Notes finished offsets. Commits follow at each interval, and before partitions leave."""
        results = _Results(len(settlements))
        touched: dict[Partition, None] = {}
        again: list[Delivery] = []
        publishing: list[tuple[int, Settlement]] = []
        for index, settlement in enumerate(settlements):
            delivery = settlement.delivery
            partition: Partition = delivery.receipt
            if not partition.live:
                results.set(index, _LOST)
            elif settlement.action is not _ACK:
                again += self._given_back(settlement, partition)
            elif self._transactions is not None:
                self._in_transaction(settlement, results, index)
            elif settlement.outputs or settlement.others:
                publishing.append((index, settlement))
            else:
                partition.finish(delivery.position)  # type: ignore[arg-type]  # may be done before
            if partition.resting:
                touched[partition] = None
        if publishing:
            self._after_outputs(publishing, results)
        if again:
            self._ready.put_back(again)
        for partition in touched:
            self._flow_control.throttle(partition)
        results.complete()
        return results.future

    def _after_outputs(self, publishing: list[tuple[int, Settlement]], results: _Results) -> None:
        """Publishes, waits for the confirmation, and settles."""
        results.expect()

        def confirmed(future: asyncio.Future[Sequence[PublishError | None]]) -> None:
            lost = future.cancelled() or future.exception() is not None
            errors = iter(() if lost else future.result())
            for index, settlement in publishing:
                own = [next(errors, _UNSURE) for _ in settlement.outputs]
                results.set(index, self._published(settlement, own))
            results.complete()

        outputs = [message for _, settlement in publishing for message in settlement.outputs]
        self._submit(outputs).add_done_callback(confirmed)

    def _published(
        self, settlement: Settlement, errors: Sequence[PublishError | None]
    ) -> SettleResult:
        places = _places(settlement)
        if any(isinstance(error, PublishRefusedError) for error in errors):
            return SettleResult.REFUSED
        if any(errors):
            return SettleResult.UNKNOWN
        if not all(partition.live for partition, _ in places):
            return _LOST
        for partition, offset in places:
            partition.finish(offset)
            self._flow_control.throttle(partition)
        return _DONE

    def _in_transaction(self, settlement: Settlement, results: _Results, index: int) -> None:
        """Makes outputs and progress visible together."""
        assert self._transactions is not None  # noqa: S101  the caller checked this
        results.expect()
        places = _places(settlement)

        def ended(result: SettleResult) -> None:
            results.set(index, result)
            results.complete()
            for item, _ in places:
                self._flow_control.throttle(item)

        self._transactions.add(places, settlement.outputs, ended)

    def _given_back(self, settlement: Settlement, partition: Partition) -> Sequence[Delivery]:
        """Returns a message that this process hands out again.

        Kafka would only redeliver it to a process that starts at its uncommitted offset.
        """
        delivery = settlement.delivery
        place = (partition, int(delivery.position))
        if self._handed_again.get(place, delivery) is not delivery or partition.is_done(place[1]):
            return ()
        if partition.marks and partition.marks.pop(int(delivery.position), None) is not None:
            partition.dirty = True  # its run ended, and the process lives
        if partition.leaving or self._stopped:
            return ()
        if len(self._handed_again) >= _REMEMBERED:
            self._forget_finished()
        if settlement.action is Action.RELEASE:
            self._handed_again[place] = delivery = dataclasses.replace(delivery)
            return (delivery,)
        self._handed_again[place] = delivery = dataclasses.replace(
            delivery, failures=settlement.failures, first_failure=settlement.first_failure
        )
        if settlement.delay <= 0:
            return (delivery,)
        partition.waiting += 1
        loop = asyncio.get_running_loop()
        self.waiting[delivery] = loop.call_later(settlement.delay, self._wait_is_over, delivery)
        return ()

    def _forget_finished(self) -> None:
        self._handed_again = {
            place: delivery
            for place, delivery in self._handed_again.items()
            if place[0].live and not place[0].is_done(place[1])
        }

    def _wait_is_over(self, delivery: Delivery) -> None:
        self.waiting.pop(delivery, None)
        partition: Partition = delivery.receipt
        partition.waiting -= 1
        if partition.live and not partition.leaving and not self._stopped:
            self._ready.put_back([delivery])

    def is_orderly(self, partition: Partition) -> bool:
        """Whether all messages of a partition that were handed out are settled or given back."""
        return partition.handed_out <= 0


def _places(settlement: Settlement) -> list[tuple[Partition, int]]:
    """Returns the partitions and offsets that are acknowledged together."""
    deliveries = (settlement.delivery, *settlement.others)
    return [(delivery.receipt, int(delivery.position)) for delivery in deliveries]

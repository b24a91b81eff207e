"""Settling: what is finished, what is handed out again, outputs first where there are any."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transports.kafka.careful import Careful
from protoflow.transports.kafka.inbox import Inbox
from protoflow.transports.kafka.intake import Intake
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.transactions import Transactions

#: Publishes outside of transactions.
Submit: TypeAlias = Callable[[Sequence[Message]], asyncio.Future[Sequence[PublishError | None]]]
_ACK = Action.ACK
_DONE = SettleResult.DONE
_LOST = SettleResult.LOST


class _Results:
    """Results of one `settle`, some of which come later."""

    def __init__(self, size: int) -> None:
        self.future: asyncio.Future[Sequence[SettleResult]]
        self.future = asyncio.get_running_loop().create_future()
        self._results = [_DONE] * size
        self._open = 1  # until everything is looked at

    def set(self, index: int, result: SettleResult) -> None:
        """The result of one settlement, where it is not DONE."""
        self._results[index] = result

    def expect(self) -> None:
        """Something more comes later, told by `complete`."""
        self._open += 1

    def complete(self) -> None:
        """What was expected has come."""
        self._open -= 1
        if not self._open and not self.future.done():
            self.future.set_result(self._results)


class Settling:
    """Carries out settlements of one subscription."""

    def __init__(
        self,
        inbox: Inbox,
        intake: Intake,
        careful: Careful,
        submit: Submit,
        transactions: Transactions | None,
    ) -> None:
        self._inbox = inbox
        self._intake = intake
        self._careful = careful
        self._submit = submit
        self._transactions = transactions
        self._stopped = False

    def stop(self) -> None:
        """Nothing is handed out again."""
        self._stopped = True

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Counts what is finished; commits follow by interval, and before partitions leave."""
        results = _Results(len(settlements))
        touched: set[Partition] = set()
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
                self._in_transaction(settlement, partition, results, index)
            elif settlement.outputs:
                publishing.append((index, settlement))
            elif not partition.finish(delivery.position):  # type: ignore[arg-type]
                results.set(index, _LOST)
            if partition.resting or partition.careful_until:
                touched.add(partition)
        if publishing:
            self._after_outputs(publishing, results)
        if again:
            self._inbox.put_back(again)
        for partition in touched:
            self._moved(partition)
        results.complete()
        return results.future

    def _moved(self, partition: Partition) -> None:
        self._careful.notice()
        self._intake.throttle(partition)

    def _after_outputs(self, publishing: list[tuple[int, Settlement]], results: _Results) -> None:
        """Publish, confirm, settle."""
        results.expect()

        def confirmed(future: asyncio.Future[Sequence[PublishError | None]]) -> None:
            errors = iter(future.result())
            for index, settlement in publishing:
                own = [next(errors) for _ in settlement.outputs]
                results.set(index, self._published(settlement, own))
            results.complete()

        outputs = [message for _, settlement in publishing for message in settlement.outputs]
        self._submit(outputs).add_done_callback(confirmed)

    def _published(
        self, settlement: Settlement, errors: Sequence[PublishError | None]
    ) -> SettleResult:
        partition: Partition = settlement.delivery.receipt
        if any(isinstance(error, PublishRefusedError) for error in errors):
            return SettleResult.REFUSED
        if any(errors):
            return SettleResult.UNKNOWN
        if not partition.live or not partition.finish(_offset(settlement)):
            return _LOST
        self._moved(partition)
        return _DONE

    def _in_transaction(
        self, settlement: Settlement, partition: Partition, results: _Results, index: int
    ) -> None:
        """Outputs and progress become visible together."""
        assert self._transactions is not None  # noqa: S101  the caller looked
        results.expect()

        def ended(result: SettleResult) -> None:
            results.set(index, result)
            results.complete()
            self._moved(partition)

        self._transactions.add(partition, _offset(settlement), settlement.outputs, ended)

    def _given_back(self, settlement: Settlement, partition: Partition) -> Sequence[Delivery]:
        """What is handed out again from memory: Kafka gives back only what is not committed."""
        delivery = settlement.delivery
        if partition.leaving or self._stopped or self._careful.given_back(delivery):
            return ()
        if settlement.action is Action.RELEASE:
            return (delivery,)
        delivery = dataclasses.replace(
            delivery, failures=settlement.failures, first_failure=settlement.first_failure
        )
        if settlement.delay <= 0:
            return (delivery,)
        loop = asyncio.get_running_loop()
        loop.call_later(settlement.delay, self._wait_is_over, delivery, partition)
        return ()

    def _wait_is_over(self, delivery: Delivery, partition: Partition) -> None:
        if partition.live and not partition.leaving and not self._stopped:
            self._inbox.put_back([delivery])


def _offset(settlement: Settlement) -> int:
    return int(settlement.delivery.position)

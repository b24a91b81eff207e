"""Receiving from queues, and settling in batches whose entries fail one by one."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from protoflow.errors import TopologyError, TransportError
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transports.sqs.claims import ASKED, Claim, delivery_of
from protoflow.transports.sqs.connection import AwsConnection, chunks
from protoflow.transports.sqs.resources import Resources

#: Seconds for which a message may be held; SQS hides it for 12 hours at most.
LONGEST_HOLD: Final = 11 * 3600
#: The receipt handle is not valid any more.
_GONE: Final = ("ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue")
_DELETE, _HIDE = "delete_message_batch", "change_message_visibility_batch"
#: A queue, and the operation on it.
_Place = tuple[str, str]
_Entry = tuple[int, dict[str, Any]]


class QueueClient:
    """The requests to queues."""

    def __init__(self, connection: AwsConnection, resources: Resources) -> None:
        self._connection = connection
        self._resources = resources

    async def receive(
        self, topic: str, queue: str, count: int, *, wait: int, lease: float, own: bool
    ) -> list[Delivery]:
        """Takes at most `count` messages; waits for the first one for `wait` seconds."""
        raw = await self.receive_raw(queue, count, wait=wait, lease=lease)
        return [delivery_of(topic, queue, each, own=own) for each in raw]

    async def receive_raw(
        self, queue: str, count: int, *, wait: int, lease: float
    ) -> Sequence[Mapping[str, Any]]:
        """Takes messages, as SQS returns them. Raises TopologyError: the queue is gone."""
        try:
            answer = await self._connection.call(
                "sqs",
                "receive_message",
                longer=wait,
                QueueUrl=await self._resources.url(queue),
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait,
                VisibilityTimeout=seconds(lease),
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=[*ASKED],
            )
        except TopologyError:
            self._resources.forget(queue)
            raise
        messages: Sequence[Mapping[str, Any]] = answer.get("Messages", ())
        return messages

    async def settle(self, settlements: Sequence[Settlement]) -> list[SettleResult]:
        """Deletes what is done, and makes the rest visible; each entry fails by itself."""
        places: dict[_Place, list[_Entry]] = defaultdict(list)
        for index, each in enumerate(settlements):
            claim: Claim = each.delivery.receipt
            entry: dict[str, Any] = {"ReceiptHandle": claim.handle}
            if each.action is not Action.ACK:
                delay = each.delay if each.action is Action.NACK else 0.0
                entry["VisibilityTimeout"] = min(LONGEST_HOLD, math.ceil(delay))
            places[claim.queue, _DELETE if each.action is Action.ACK else _HIDE].append(
                (index, entry)
            )
        results = [SettleResult.UNKNOWN] * len(settlements)
        await self._requests(places, results)
        return results

    async def renew(self, deliveries: Sequence[Delivery], lease: float) -> list[SettleResult]:
        """Hides deliveries for another lease; returns for each whether that was done."""
        places: dict[_Place, list[_Entry]] = defaultdict(list)
        results = [SettleResult.DONE] * len(deliveries)
        for index, each in enumerate(deliveries):
            if isinstance(each.receipt, Claim):  # otherwise it was settled meanwhile
                entry = {"ReceiptHandle": each.receipt.handle, "VisibilityTimeout": seconds(lease)}
                places[each.receipt.queue, _HIDE].append((index, entry))
                results[index] = SettleResult.UNKNOWN
        await self._requests(places, results)
        return results

    async def delete(self, queue: str, handles: Sequence[str]) -> None:
        """Deletes messages. Raises TransportError if one is not deleted."""
        entries = [(index, {"ReceiptHandle": handle}) for index, handle in enumerate(handles)]
        results = [SettleResult.UNKNOWN] * len(handles)
        await self._requests({(queue, _DELETE): entries}, results)
        if left := len(handles) - results.count(SettleResult.DONE):
            raise TransportError(
                f"{left} of {len(handles)} messages of queue {queue} were not deleted"
            )

    async def hide(self, queue: str, handles: Sequence[str], duration: float) -> None:
        """Hides taken messages for so many seconds from now, 0 to show them, as far as possible."""
        entries = [
            (index, {"ReceiptHandle": handle, "VisibilityTimeout": math.ceil(duration)})
            for index, handle in enumerate(handles)
        ]
        await self._requests({(queue, _HIDE): entries}, [SettleResult.UNKNOWN] * len(handles))

    async def _requests(
        self, places: Mapping[_Place, Sequence[_Entry]], results: list[SettleResult]
    ) -> None:
        await asyncio.gather(
            *(
                self._request(place, chunk, results)
                for place, entries in places.items()
                for chunk in chunks(entries)
            )
        )

    async def _request(
        self, place: _Place, entries: Sequence[_Entry], results: list[SettleResult]
    ) -> None:
        """Sends one batch; the results of what failed for now stay unknown."""
        queue, operation = place
        try:
            answer = await self._connection.call(
                "sqs",
                operation,
                QueueUrl=await self._resources.url(queue),
                Entries=[{"Id": str(number), **entry} for number, (_, entry) in enumerate(entries)],
            )
        except TopologyError:  # the queue is gone, and with it what was held
            for index, _ in entries:
                results[index] = SettleResult.LOST
            return
        except TransportError:  # `health` reports it
            return
        failed = {each["Id"]: str(each.get("Code", "")) for each in answer.get("Failed", ())}
        for number, (index, _) in enumerate(entries):
            code = failed.get(str(number))
            if code is None:
                results[index] = SettleResult.DONE
            elif code.rpartition(".")[2] in _GONE:
                results[index] = SettleResult.LOST


def seconds(lease: float) -> int:
    """Returns a lease as SQS takes it: whole seconds."""
    return max(1, math.ceil(lease))

"""Start marks of suspects, in the metadata of offset commits.

After repeated abnormal ends, some message probably kills the process. Each suspect is recorded
before it runs alone. So the next process knows which message ran, and how often.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from protoflow.error_codes import LEASE_LOST
from protoflow.errors import TransportError
from protoflow.message import Delivery
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.partition import Partition

#: Commits the offset and the metadata of a partition; durable when it returns.
Write: TypeAlias = Callable[[Partition], Coroutine[Any, Any, None]]


class StartMarks:
    """Counts starts that have not ended; see `protoflow.transport.Isolation`."""

    def __init__(self, name: str, write: Write) -> None:
        self._name = name
        self._write = write

    def of(self, delivery: Delivery) -> tuple[Delivery, int] | None:
        """Returns a delivery and its marks; None if it is no longer held here."""
        partition: Partition = delivery.receipt
        if not partition.live or partition.leaving:
            return None
        return delivery, partition.marks.get(int(delivery.position), 0)

    async def add(self, delivery: Delivery) -> None:
        """Adds one mark. Raises TransportError."""
        partition: Partition = delivery.receipt
        offset = int(delivery.position)
        before = partition.marks.get(offset, 0)
        partition.marks[offset] = before + 1
        try:
            await self._durable(partition)
        except BaseException:
            # The message will not run. A later commit removes the mark if it was written, because
            # commits contain all values.
            partition.marks[offset] = before
            raise

    async def remove(self, delivery: Delivery) -> None:
        """Removes the marks. Raises TransportError."""
        partition: Partition = delivery.receipt
        if not partition.live:
            return  # the new owner has read the mark, and runs the message alone
        if partition.leaving:
            partition.marks.pop(int(delivery.position), None)  # the last commit contains none
            return
        if partition.marks.pop(int(delivery.position), None) is not None:
            try:
                await self._durable(partition)
            except BaseException:
                partition.marks.setdefault(int(delivery.position), 0)
                raise

    async def _durable(self, partition: Partition) -> None:
        if not partition.live or partition.leaving:
            raise TransportError(
                f"kafka: {self._name}: {partition.tp} has moved away", code=LEASE_LOST
            )
        try:
            await self._write(partition)
        except Exception as error:
            raise transport_error(error, "writing a start mark", self._name) from error

"""The producer for all messages outside of transactions, replaced after failures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from protoflow.error_codes import UNCONFIRMED
from protoflow.errors import PublishError
from protoflow.transports.kafka.broker_queries import HEADROOM
from protoflow.transports.kafka.connection import prefer_who_answers
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.options import Compression, KafkaOptions

_log = logging.getLogger("protoflow.transports.kafka")


class Producers:
    """One idempotent producer at a time.

    After a failed batch the producer is replaced: aiokafka's sequence numbers then have a gap, and
    the broker would refuse all later batches of that partition as out of order.

    Attributes:
        current: the producer; None while it is replaced.
    """

    def __init__(self, context: KafkaContext, replaced: Callable[[], None]) -> None:
        self.current: AIOKafkaProducer | None = None
        self._context = context
        self._replaced = replaced
        self._latest: AIOKafkaProducer
        self._usable = asyncio.Event()
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._replacing: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connects."""
        producer = AIOKafkaProducer(**producer_arguments(self._context))
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self.current = self._latest = producer
        self._usable.set()

    async def get(self) -> AIOKafkaProducer:
        """Returns the producer; waits while it is replaced."""
        while self.current is None or not self._usable.is_set():
            await self._usable.wait()
        return self.current

    def create_batch(self) -> BatchBuilder:
        """Returns an empty batch, which any of the producers may send."""
        return self._latest.create_batch()

    async def confirmed(self, sent: asyncio.Future[Any]) -> None:
        """Waits until the broker has stored the batch. Raises KafkaError, or PublishError if its
        producer was given up before."""
        given_up = self._given_up
        await asyncio.wait((sent, given_up), return_when=asyncio.FIRST_COMPLETED)
        if sent.done():
            sent.result()
            return
        sent.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise PublishError(
            "kafka: not confirmed by the broker; it may have been published", code=UNCONFIRMED
        )

    def replace(self) -> None:
        """Creates a new producer after a failed batch."""
        if self._usable.is_set() and not self._closed:
            self._usable.clear()
            self._replacing = asyncio.get_running_loop().create_task(self._replace())

    async def _replace(self) -> None:
        _log.warning("a batch was refused, and publishing continues with a new producer")
        self._replaced()
        await self._stop(self._context.options.request_timeout)
        while not self._closed:
            try:
                await self.open()
            except Exception as error:  # whatever the error is, publishing needs a producer
                _log.info("a new producer could not be created", extra={"error": repr(error)})
                await asyncio.sleep(1)
                with contextlib.suppress(Exception):  # this only makes the next attempt faster
                    await prefer_who_answers(self._context.client)
            else:
                return

    async def _stop(self, seconds: float) -> None:
        producer, self.current = self.current, None
        if producer is None:
            return
        stopping = asyncio.get_running_loop().create_task(producer.stop())
        try:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(seconds):
                    await stopping
                    return
            # The producer waits for a broker that does not answer: its last batches are given up.
            await abandon_producer(producer)
        except asyncio.CancelledError:
            await abandon_producer(producer)
            raise
        finally:
            given_up, self._given_up = self._given_up, asyncio.get_running_loop().create_future()
            given_up.set_result(None)

    async def close(self, seconds: float) -> None:
        """Disconnects after at most this time. It is idempotent."""
        self._closed = True
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.gather(self._replacing, return_exceptions=True)
        await self._stop(seconds)


async def abandon_producer(producer: AIOKafkaProducer) -> None:
    """Ends a producer at once, without waiting for the broker."""
    with contextlib.suppress(Exception):  # it is abandoned in any case
        await producer.client.close()
    sending: asyncio.Task[None] | None = getattr(producer._sender, "_sender_task", None)
    if sending is not None and not sending.done():
        sending.cancel()
        await asyncio.wait([sending], timeout=1.0)
    producer._closed = True  # otherwise it logs a warning when it is collected


def producer_arguments(context: KafkaContext) -> dict[str, Any]:
    """Returns the keyword arguments of aiokafka's producer."""
    options: KafkaOptions = context.options
    return context.client | {
        "acks": "all",
        "enable_idempotence": options.idempotence,
        "compression_type": (
            None if options.compression is Compression.NONE else options.compression.value
        ),
        "linger_ms": int(options.linger * 1000),
        "max_batch_size": options.max_batch_size,
        # The encoder has refused messages above the limit of their topic before this limit counts.
        "max_request_size": options.max_request_size + HEADROOM,
    }

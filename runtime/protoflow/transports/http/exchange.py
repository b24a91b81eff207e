"""A request whose messages are handled: it is answered when every group has settled them."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from protoflow.message import Delivery
from protoflow.transports.http.requests import Answer, later

#: Everything was handled.
HANDLED: Final = Answer(204)


class Holder(Protocol):
    """A subscription that holds deliveries."""

    def lose(self, delivery: Delivery) -> None:
        """Withdraws a delivery whose request has ended."""


class Exchange:
    """The deliveries of one request.

    Attributes:
        answer: the answer, once no delivery is open.
    """

    __slots__ = ("_failure", "_open", "answer")

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open: dict[Delivery, Holder] = {}
        self._failure: Answer | None = None

    def add(self, delivery: Delivery, subscription: Holder) -> None:
        """Adds a delivery, which must end before the request is answered."""
        self._open[delivery] = subscription

    def end(self, delivery: Delivery, failure: Answer | None = None) -> None:
        """Ends a delivery. With a failure, the sender must send the request again. If there are
        several, a failure that may pass has priority."""
        if self._open.pop(delivery, None) is None:
            return
        if failure is not None and (self._failure is None or "Retry-After" in failure.headers):
            self._failure = failure
        if not self._open and not self.answer.done():
            self.answer.set_result(self._failure or HANDLED)

    def abandon(self) -> None:
        """Withdraws the open deliveries, because no answer will reach the sender."""
        for delivery, subscription in [*self._open.items()]:
            subscription.lose(delivery)
        self._open.clear()


async def answered(exchange: Exchange, timeout: float) -> Answer:
    """Waits for the answer. If the wait is cancelled or too long, the deliveries are withdrawn."""
    try:
        async with asyncio.timeout(timeout):
            return await exchange.answer
    except TimeoutError:
        return later(503, f"the messages were not handled within {timeout:g} s", 5)
    finally:
        exchange.abandon()

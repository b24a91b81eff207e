"""A transport that refuses what a test asks it to refuse, and passes on everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.service import Service
from protoflow.transport import (
    Capabilities,
    Subscription,
    SubscriptionListener,
    SubscriptionSettings,
    Transport,
)

#: The error that a message is refused with; None lets it pass.
Rule = Callable[[Message], PublishError | None]


def topic_fails(topic: str, error: PublishError | None = None) -> Rule:
    """Refuses what goes to a topic."""
    failure = error or PublishError("the broker is full, says the test")
    return lambda message: failure if message.topic == topic else None


def nothing_fails(_message: Message) -> PublishError | None:
    return None


class Faulty:
    """Implements `Transport` around another.

    Attributes:
        rule: what is refused.
        refused: the messages that were.
        settled: every settlement that was asked for.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.rule: Rule = nothing_fails
        self.refused: list[Message] = []
        self.settled: list[Settlement] = []

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        errors = [self._refuse(message) for message in messages]
        taken = [message for message, error in zip(messages, errors, strict=True) if error is None]
        future: asyncio.Future[Sequence[PublishError | None]]
        future = asyncio.get_running_loop().create_future()

        def merge(done: asyncio.Future[Sequence[PublishError | None]]) -> None:
            if future.done():
                return
            if done.cancelled():
                future.cancel()
            elif (failure := done.exception()) is not None:
                future.set_exception(failure)
            else:
                results = iter(done.result())
                future.set_result([next(results) if error is None else error for error in errors])

        self.inner.submit(taken).add_done_callback(merge)
        return future

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        return _Subscription(self, await self.inner.subscribe(settings, listener))

    def _refuse(self, message: Message) -> PublishError | None:
        error = self.rule(message)
        if error is not None:
            self.refused.append(message)
        return error

    def result_for(self, settlement: Settlement) -> SettleResult | None:
        """What a settlement with refused outputs comes to; None lets it pass."""
        for message in settlement.outputs:
            if (error := self._refuse(message)) is not None:
                refused = isinstance(error, PublishRefusedError)
                return SettleResult.REFUSED if refused else SettleResult.UNKNOWN
        return None


def faulty_of(service: Service) -> Faulty:
    """The faulty transport that a service was made with."""
    assert isinstance(service.transport, Faulty)
    return service.transport


class _Subscription:
    def __init__(self, faulty: Faulty, inner: Subscription) -> None:
        self._faulty = faulty
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        self._faulty.settled += settlements
        results = [self._faulty.result_for(settlement) for settlement in settlements]
        taken = [item for item, result in zip(settlements, results, strict=True) if result is None]
        future: asyncio.Future[Sequence[SettleResult]]
        future = asyncio.get_running_loop().create_future()

        def merge(done: asyncio.Future[Sequence[SettleResult]]) -> None:
            if future.done():
                return
            if done.cancelled():
                future.cancel()
            elif (failure := done.exception()) is not None:
                future.set_exception(failure)
            else:
                inner = iter(done.result())
                future.set_result([next(inner) if item is None else item for item in results])

        self._inner.settle(taken).add_done_callback(merge)
        return future

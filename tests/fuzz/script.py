"""A transport that hands out what a test gives it, and notes what happens to each."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport import Capabilities, SubscriptionSettings, Topology, TopologyMode


class Script:
    """Implements `Transport`, and takes messages as strictly as brokers do.

    Attributes:
        capabilities: what it claims.
        subscriptions: by `<topic>/<group>`.
        published: everything that was published.
    """

    def __init__(self, **capabilities: Any) -> None:
        claims = {"counts_deliveries": True, "dead_letters": False, **capabilities}
        self.capabilities = Capabilities(per_key=True, per_partition=True, **claims)
        self.subscriptions: dict[str, ScriptedSubscription] = {}
        self.published: list[Message] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None: ...

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        results = [_refusal(message) for message in messages]
        self.published += [
            message for message, error in zip(messages, results, strict=True) if error is None
        ]
        return _soon(results)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: Any
    ) -> ScriptedSubscription:
        made = self.subscriptions[settings.name] = ScriptedSubscription()
        return made

    def health(self) -> str | None:
        return None


class ScriptedSubscription:
    """Implements `Subscription`, `Isolation` and `Availability`.

    Attributes:
        waiting: what is to be handed out.
        settled: how often each delivery was settled, by identity.
        returned: deliveries that were given back, with the wait that was asked for.
        calls: how often `receive` was called.
    """

    def __init__(self) -> None:
        self.waiting: list[Delivery] = []
        self.settled: dict[int, int] = {}
        self.returned: list[tuple[Delivery, float]] = []
        self.calls = 0
        self._some = asyncio.Event()
        self._stopped = False

    def give(self, deliveries: Sequence[Delivery]) -> None:
        self.waiting += deliveries
        self._some.set()

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        self.calls += 1
        while not self.waiting and not self._stopped:
            self._some.clear()
            await self._some.wait()
        taken, self.waiting = self.waiting[:max_messages], self.waiting[max_messages:]
        return taken

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        for settlement in settlements:
            delivery = settlement.delivery
            if settlement.action is Action.ACK:
                self.settled[id(delivery)] = self.settled.get(id(delivery), 0) + 1
            else:
                self.returned.append((delivery, settlement.delay))
        return _soon([SettleResult.DONE] * len(settlements))

    def defer(self, message: Message, delay: float) -> Message | None:
        return None

    def pause(self, shards: Collection[str | int]) -> None: ...

    def resume(self, shards: Collection[str | int]) -> None: ...

    async def stop(self) -> None:
        self._stopped = True
        self._some.set()

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        return None if delivery is None else (delivery, 0)

    async def mark(self, delivery: Delivery) -> None: ...

    async def clear(self, delivery: Delivery) -> None: ...

    async def available(self) -> int | None:
        return len(self.waiting)


def _refusal(message: Message) -> PublishError | None:
    """What no broker takes: text that cannot be encoded."""
    try:
        for text in (message.id, message.topic, *message.metadata, *message.metadata.values()):
            text.encode()
    except UnicodeEncodeError as error:
        return PublishRefusedError(f"a lone surrogate: {error.reason}")
    return None


def _soon(results: list[Any]) -> asyncio.Future[Any]:
    """The answer with the next turn of the loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    loop.call_soon(_answer, future, results)
    return future


def _answer(future: asyncio.Future[Any], results: list[Any]) -> None:
    if not future.done():
        future.set_result(results)

"""Finds other processes of a namespace by heartbeats over the broker, if the settings ask for it.

A heartbeat only contains names and numbers; nothing in it is fetched or called.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Final

from protoflow import ids
from protoflow.config.settings import Config
from protoflow.contract.names import namespaced
from protoflow.contract.spec import Start
from protoflow.errors import CapabilityError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.stats.dead_letters import timestamp
from protoflow.transport.interface import Subscription, SubscriptionSettings, Topology, Transport
from protoflow.web.schemas import SCHEMAS
from protoflow.web.shapes import fits

_log = logging.getLogger("protoflow.web")

_TOPIC: Final = "protoflow-processes"
#: Seconds between two heartbeats; a process that sends none for `_GONE` is not shown.
_PERIOD: Final = 5.0
_GONE: Final = 20.0
_LARGEST: Final = 256 * 1024
_MOST: Final = 200

Beat = dict[str, Any]


class Neighbours:
    """Sends heartbeats and keeps those of others; an asynchronous context manager.

    Args:
        transport: the broker, open.
        config: the namespace.
        beat: returns the data about this process; with None it only listens.
    """

    def __init__(
        self, transport: Transport, config: Config, beat: Callable[[], Beat] | None
    ) -> None:
        self._transport = transport
        self._config = config
        self._beat = beat
        self._name = f"{socket.gethostname()}-{os.getpid()}-{ids.new_id()}"
        self._topic = namespaced(config.namespace, _TOPIC)
        self._others: dict[str, tuple[float, Beat]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._subscription: Subscription | None = None

    @property
    def beats(self) -> list[Beat]:
        """The last heartbeats of other processes, sorted by name."""
        now = time.time()
        self._others = {n: one for n, one in self._others.items() if now - one[0] < _GONE}
        found = []
        for _name, (seen, beat) in sorted(self._others.items()):
            processes = [{**one, "seen_at": timestamp(seen)} for one in beat["processes"]]
            found.append({**beat, "processes": processes})
        return found

    async def __aenter__(self) -> Neighbours:
        if not self._transport.capabilities.broadcast:
            raise CapabilityError(
                f"http_processes: {self._config.url.scheme} has no broadcast, so processes do not "
                "learn of each other; turn it off"
            )
        settings = SubscriptionSettings(
            name=f"{self._topic}/{self._name}", topic=self._topic, group=self._name,
            start=Start.LATEST, broadcast=True, needs_broker_retry=False, internal=True,
        )  # fmt: skip
        topology = Topology(subscriptions=(settings,), topics=(self._topic,))
        await self._transport.ensure(topology, self._config.topology)
        self._subscription = await self._transport.subscribe(settings, _Nothing())
        self._tasks.append(asyncio.create_task(self._listen(self._subscription)))
        if self._beat is not None:
            self._tasks.append(asyncio.create_task(self._send(self._beat)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.stop()

    async def _send(self, beat: Callable[[], Beat]) -> None:
        while True:
            try:
                content = json.dumps({"name": self._name, **beat()}).encode()
                message = Message(id=ids.new_id(), topic=self._topic, payload=content)
                await self._transport.submit((message,))
            except Exception as error:  # only the pages of other processes are affected
                _log.warning("a heartbeat was not sent", extra={"error": repr(error)})
            await asyncio.sleep(_PERIOD)

    async def _listen(self, subscription: Subscription) -> None:
        unsettled: list[Settlement] = []
        while True:
            try:
                if unsettled:
                    results = await subscription.settle(unsettled)
                    unsettled = [
                        each
                        for each, result in zip(unsettled, results, strict=True)
                        if result is SettleResult.UNKNOWN
                    ]
                if not unsettled:
                    deliveries = await subscription.receive(100, _LARGEST)
                    if not deliveries:
                        return
                    for delivery in deliveries:
                        self._take(delivery.message.payload or b"")
                    unsettled = [Settlement(delivery=delivery) for delivery in deliveries]
                    continue
            except Exception as error:  # the next heartbeats are still read
                _log.warning("heartbeats are not read", extra={"error": repr(error)})
            await asyncio.sleep(_PERIOD)

    def _take(self, payload: bytes) -> None:
        """Keeps a heartbeat; invalid ones and this process's own are left out."""
        beat: Any
        try:
            beat = json.loads(payload) if len(payload) <= _LARGEST else None
            name = str(beat.pop("name"))
            # What the pages show and sum must be what they take it for.
            good = fits(beat, SCHEMAS["Processes"]) and fits(beat, SCHEMAS["Handlers"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        if good and name != self._name and (name in self._others or len(self._others) < _MOST):
            self._others[name] = (time.time(), beat)


class _Nothing:
    """A listener that does nothing."""

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """Does nothing, because no handler runs."""

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Does nothing, because heartbeats are settled immediately."""

    def health_changed(self, healthy: bool, detail: str) -> None:
        """Does nothing, because the other subscriptions report the same."""

    def suspects_waiting(self) -> None:
        """Does nothing, because there are no suspects."""

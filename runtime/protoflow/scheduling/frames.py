"""Messages with frames of a schema registry: their type may have to be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from protoflow.context import Context
from protoflow.errors import SchemaRegistryError
from protoflow.failure_policy import as_outcome
from protoflow.message import Delivery, Message
from protoflow.outcomes import Outcome, Postpone
from protoflow.scheduling.job import Route
from protoflow.scheduling.router import Router
from protoflow.schema_registry.frame_reader import FrameReader
from protoflow.schema_registry.registry import SchemaRegistry
from protoflow.transport.kit.backoff import Backoff

_REASON = "schema registry"
_FIRST_WAIT = 0.5


class Frames:
    """Opens the messages of one subscription.

    A message whose type is not known takes the route `pending`, in its lane. Its run asks the
    registry. While the registry cannot be reached, the message waits, and no attempt is counted.

    Args:
        registry: the registry.
        router: the handlers of the subscription.
        mark_unready: turns readiness red while messages wait.
        random: returns a number from 0 up to 1, for the waits.

    Attributes:
        pending: the route of messages whose type is not known yet.
    """

    def __init__(
        self, registry: SchemaRegistry, router: Router,
        mark_unready: Callable[[str, str | None], None], random: Callable[[], float],
    ) -> None:  # fmt: skip
        first = router.first
        contracts = (route.registration.message for route in router.all)
        types = {
            contract.message_class.DESCRIPTOR.full_name: contract.type
            for contract in contracts
            if contract is not None
        }
        self._reader = FrameReader(registry, types)
        self.pending = Route(first.spec, first.registration, self._ask)
        self._registry = registry
        self._mark_unready = mark_unready
        self._backoff = Backoff(_FIRST_WAIT, registry.options.longest_wait, random)
        self._wait_until = 0.0
        self._ready_again: asyncio.TimerHandle | None = None

    def opened(self, message: Message) -> Message | None:
        """Returns a message without its frame; None if its type is not known yet. Raises
        DecodeError."""
        found = self._reader.opened(message)
        return found if isinstance(found, Message) else None

    async def _ask(self, delivery: Delivery, _context: Context) -> Outcome:
        """Asks for the type of a message; afterwards the message arrives again."""
        frame = self._reader.opened(delivery.message)
        if not isinstance(frame, Message):
            try:
                await self._registry.learn(frame)
            except SchemaRegistryError as error:
                if error.temporary:
                    return self._wait(error)
                # A registry may get the schema a little later, so the policy decides.
                return as_outcome(error, error, delivery, self.pending.spec)
        self._backoff.reset()
        self._wait_until = 0.0
        self._works()
        return Postpone(0.0, "the type is known now")

    def _wait(self, error: SchemaRegistryError) -> Postpone:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._wait_until:  # messages that fail together are one failure
            self._wait_until = now + self._backoff.next()
        delay = self._wait_until - now
        self._mark_unready(_REASON, str(error))
        if self._ready_again is not None:
            self._ready_again.cancel()
        # If the waiting messages are lost to another process, no answer would end the red state.
        longest = 2 * (delay + self._registry.options.timeout)
        self._ready_again = loop.call_later(longest, self._works)
        return Postpone(delay, str(error))

    def _works(self) -> None:
        self._mark_unready(_REASON, None)
        if self._ready_again is not None:
            self._ready_again.cancel()
            self._ready_again = None

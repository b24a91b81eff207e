"""The subscription of a replayed handler: it receives old messages, and settling reports them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from protoflow import wire
from protoflow.context import Context
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.outcomes import DeadLetter, Done, Outcome, Retry, Skip
from protoflow.pipeline import HandlerSpec, Next
from protoflow.topic_replay.entries import Entry, Result, Status, Ticket, size_of
from protoflow.topic_replay.window import WINDOW_BYTES

#: The message of the running handler.
_current: ContextVar[Ticket | None] = ContextVar("replayed", default=None)
#: The most bytes of a portion, so that the window has room for a whole one.
_PORTION_BYTES: Final = WINDOW_BYTES // 2
#: Characters of an id that the smallest dead letter keeps, too.
_ID: Final = 50
#: Takes the result of a version of the handler.
Settle = Callable[[Entry, int, Result], None]


class Feed:
    """Implements `Subscription` for one version of a handler.

    Args:
        version: the index of the version.
        settle: takes each result.
        failed: called when a run has failed, before it is settled.
        portion: hands out this many messages at a time, or fewer large ones, and the next after
            these are settled; so batches are the same in all versions. None: no limit.
        reprocess: the group whose inbox is ignored; "" if it is not.
    """

    def __init__(
        self,
        version: int,
        settle: Settle,
        failed: Callable[[], None],
        portion: int | None = None,
        reprocess: str = "",
    ) -> None:
        self._version = version
        self._settle = settle
        self._failed = failed
        self._portion = portion
        self._reprocess = reprocess
        self._waiting: deque[Entry] = deque()
        #: The messages of each complete portion; and those of the last one, with their bytes.
        self._portions: deque[int] = deque()
        self._gathered = 0
        self._gathered_bytes = 0
        #: The deliveries that are not settled, by what dead letters name: shard, position and id.
        #: On Redis, messages in two streams of a topic may have the same position.
        self._open: dict[tuple[str, str, str], Ticket] = {}
        self._ended = False
        self._changed = asyncio.Event()

    def expect(self, message: Message) -> None:
        """Completes the portion that a message would make too large. The message may have to wait
        until the portion is settled."""
        if self._gathered and self._gathered_bytes + size_of(message) > _PORTION_BYTES:
            self._complete()

    def put(self, entry: Entry) -> None:
        """Adds a message."""
        self._waiting.append(entry)
        if self._portion is not None:
            self._gathered += 1
            self._gathered_bytes += entry.size
            if self._gathered == self._portion:
                self._complete()
        self._changed.set()

    def end(self, *, drop: bool = False) -> None:
        """No message follows; `drop` also forgets those that were not handed out."""
        if drop:
            self._waiting.clear()
            self._portions.clear()
        self._ended = True
        self._changed.set()

    def fail(self, dead_letter: Message) -> None:
        """Notes the failure of the message that a dead letter was made of."""
        metadata = dead_letter.metadata
        ticket = self._open.get(
            (
                metadata.get(wire.PF_ORIGINAL_SHARD, ""),
                metadata.get(wire.PF_ORIGINAL_POSITION, ""),
                dead_letter.id[:_ID],
            )
        )
        if ticket is not None:
            ticket.result.fail(dead_letter)
            ticket.failed()

    # `Subscription`

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `Subscription`."""
        while not self._has_portion():
            if self._ended and not self._waiting:
                return []
            self._changed.clear()
            await self._changed.wait()
        found: list[Delivery] = []
        size = 0
        most = min(max_messages, self._portions[0]) if self._portions else max_messages
        while self._waiting and len(found) < most:
            entry = self._waiting[0]
            size += entry.size
            if found and size > max_bytes:
                break
            self._waiting.popleft()
            found.append(self._delivery(entry))
        if self._portions:
            self._portions[0] -= len(found)
            if not self._portions[0]:
                self._portions.popleft()
        return found

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """See `Subscription`. Reports the results."""
        for settlement in settlements:
            deliveries = (settlement.delivery, *settlement.others)
            tickets = [self._close(delivery) for delivery in deliveries]
            if settlement.action is Action.RELEASE:
                for ticket in tickets:
                    ticket.result = Result(Status.NOT_RUN)
            else:
                _divide(settlement.outputs, tickets)
            for ticket in tickets:
                self._settle(ticket.entry, self._version, ticket.result)
        if not self._open:
            self._changed.set()
        answer: asyncio.Future[Sequence[SettleResult]] = asyncio.get_running_loop().create_future()
        answer.set_result([SettleResult.DONE] * len(settlements))
        return answer

    def defer(self, message: Message, delay: float) -> Message | None:
        """See `Subscription`. No wait is kept outside of this process."""
        return None

    def pause(self, shards: Collection[str | int]) -> None:
        """See `Subscription`."""

    def resume(self, shards: Collection[str | int]) -> None:
        """See `Subscription`."""

    async def stop(self) -> None:
        """See `Subscription`."""
        self.end(drop=True)

    def _has_portion(self) -> bool:
        if not self._waiting:
            return False
        if self._portion is None:
            return True
        return not self._open and (self._ended or bool(self._portions))

    def _complete(self) -> None:
        self._portions.append(self._gathered)
        self._gathered = self._gathered_bytes = 0
        self._changed.set()

    def _delivery(self, entry: Entry) -> Delivery:
        record = entry.record
        message = record.message
        if self._reprocess:
            message = _reprocessed(message, self._reprocess)
        shard, _, position = record.position.rpartition("/")
        ticket = Ticket(entry, self._version, self._failed)
        self._open[shard or "0", position, message.id[:_ID]] = ticket
        return Delivery(
            message=message,
            shard=shard or "0",
            position=position,
            time=record.time,
            size=size_of(message),
            receipt=ticket,
            own_place=bool(self._reprocess),
        )

    def _close(self, delivery: Delivery) -> Ticket:
        ticket: Ticket = delivery.receipt
        id = ticket.entry.record.message.id[:_ID]
        self._open.pop((str(delivery.shard), str(delivery.position), id), None)
        return ticket


def observe(next: Next, spec: HandlerSpec) -> Next:
    """The outermost middleware of a replay: it notes that the handler has run, or why it was
    skipped. A message is run once, so no outcome asks for another run."""

    async def run(delivery: Delivery, context: Context) -> Outcome:
        token = _current.set(delivery.receipt)
        try:
            outcome = await next(delivery, context)
        finally:
            _current.reset(token)
        if isinstance(outcome, Done | Skip):
            items: Sequence[Context] = getattr(context, "items", (context,))
            for item in items:
                result = item.delivery.receipt.result
                result.status = Status.DONE if isinstance(outcome, Done) else Status.SKIPPED
                result.error_text = getattr(outcome, "reason", "")
            return outcome
        if isinstance(outcome, DeadLetter | Retry) and not hasattr(context, "items"):
            delivery.receipt.failed()
        return _without_retry(outcome) if isinstance(outcome, Retry) else outcome

    return run


def current_ticket() -> Ticket | None:
    """Returns the receipt of the message that the caller's run handles."""
    return _current.get()


def _without_retry(outcome: Retry) -> Outcome:
    from protoflow.failure_policy import Exhausted

    given_up = Exhausted(outcome.reason or "the handler is to run again later")
    given_up.__cause__ = outcome.__cause__
    return given_up


def _divide(outputs: Sequence[Message], tickets: Sequence[Ticket]) -> None:
    """Gives each output to the message that caused it; in a batch, the others to its first."""
    by_id: dict[str, Ticket] = {ticket.entry.record.message.id: ticket for ticket in tickets}
    for output in outputs:
        if wire.PF_DEAD_LETTER in output.metadata:
            tickets[0].result.fail(output)
            tickets[0].failed()
            continue
        cause: Any = by_id.get(output.metadata.get(wire.CAUSATION_ID, ""), tickets[0])
        cause.result.outputs.append(output)


def _reprocessed(message: Message, group: str) -> Message:
    """Returns the message with the mark that an operator wants it handled again. Hop state of
    earlier runs is left out, because the delivery counts as the runtime's own."""
    metadata = {
        name: value
        for name, value in message.metadata.items()
        if not name.startswith(wire.PF_PREFIX)
    }
    metadata |= {wire.PF_REPROCESS: "true", wire.PF_GROUP: group}
    return replace(message, metadata=metadata)

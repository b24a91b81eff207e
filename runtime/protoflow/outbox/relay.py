"""The relay: publishes the messages of an outbox, each key in order, and deletes confirmed ones.

Messages with the same topic and key form a lane. A message is submitted only after all earlier ones
of its lane are confirmed or parked, so a failure never changes the order. Lanes do not wait for
each other: a lane that fails is retried later. A message is parked if it is refused permanently, or
if it fails repeatedly while others are stored. During an outage no message is stored, so none is
parked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final

from protoflow.errors import ConnectionFailedError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.outbox.store import Pending, RelayedOutbox
from protoflow.outbox.trouble import LONGEST_PAUSE, Troubles
from protoflow.publishing.publisher import MessagePublisher
from protoflow.publishing.submitter import Results, Submitter
from protoflow.routing.transport import output_transports
from protoflow.stats.handlers import SentMessages
from protoflow.transport.interface import Transport
from protoflow.transport.kit.backoff import Backoff
from protoflow.transport.kit.wake_signal import WakeSignal

_log = logging.getLogger("protoflow.outbox")

#: At most this many lanes are tried at once while the broker stores no message.
_PROBES: Final = 10
#: At most this many lanes are paused; with more, all lanes wait.
_MOST_TROUBLED: Final = 100
#: Seconds after which confirmed messages are deleted, even if there are more to submit.
_DELETE_AFTER: Final = 0.2
#: Seconds until the next check of the outbox just after it had messages.
_SHORTEST_POLL: Final = 0.005
#: Seconds that a stop waits for messages in flight.
_STOP_PATIENCE: Final = 3.0


class OutboxRelay:
    """Publishes the messages of an outbox, each key in order, and deletes the confirmed ones.

    After a crash the last messages are published again with the same ids. A clean stop waits for
    messages in flight and leaves the others for the next start or another relay.

    Args:
        store: the outbox.
        transport: the destination of the messages.
        poll: seconds between two checks of an empty outbox.
        batch: the number of messages that are read at once.
        attempts: the number of failures, while others are stored, after which a message is parked.
        sent: counts confirmed messages; a service passes its own counter.
        publisher: creates topics before the first message to them; None if the topics exist.
        mandatory: whether a message that no queue or stream stores is an error.
    """

    def __init__(
        self,
        store: RelayedOutbox,
        transport: Transport,
        *,
        poll: float = 0.05,
        batch: int = 1000,
        attempts: int = 10,
        sent: SentMessages | None = None,
        publisher: MessagePublisher | None = None,
        mandatory: bool = False,
    ) -> None:
        self._store = store
        self._submitter = Submitter(transport, sent or SentMessages())
        self._transport_of = output_transports(transport)
        self._poll = poll
        self._batch = batch
        self._publisher = publisher
        self._mandatory = mandatory
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._wake = WakeSignal()
        self._troubles = Troubles(poll, attempts)
        # Whether some messages that were read are neither deleted nor parked.
        self._again = True
        self._confirmed: list[int] = []
        #: The numbers of confirmed messages, by transport.
        self._taken: Counter[str] = Counter()
        self._broker_problem: str | None = None
        self._store_problem: str | None = None
        self.waiting = 0
        self.oldest_at = 0.0
        #: The number of parked messages.
        self.parked = 0

    @property
    def problem(self) -> str | None:
        """The reason why the relay cannot publish; None if it can."""
        return self._store_problem or self._broker_problem

    def wake(self) -> None:
        """Checks the outbox immediately, because a transaction may have committed."""
        self._wake.wake()

    async def relay(self) -> int:
        """Publishes one batch, unless other relays have the claim. Returns the number of confirmed
        messages. Errors of the store are raised."""
        again, self._again = self._again, True
        # published messages are deleted before the claim can go to another relay
        await self._delete()
        if not await self._store.claim(self):
            return 0
        now = asyncio.get_running_loop().time()
        waiting = self._troubles.waiting(now)
        if self._broker_problem is not None and len(waiting) >= _MOST_TROUBLED:
            return 0
        limit = self._batch if self._broker_problem is None else _PROBES
        items = await self._store.pending(limit, waiting, again=again)
        lanes: dict[Hashable, deque[Pending]] = {}
        for item in items:
            lanes.setdefault(item.lane, deque()).append(item)
        if not lanes and not waiting:
            self._recovered()
        before, parked, deleted_at = self._taken.total(), self.parked, now
        while lanes and not self._stopping and self._store.holds(self):
            await self._submit_heads(lanes)
            if asyncio.get_running_loop().time() - deleted_at > _DELETE_AFTER:
                await self._delete()
                deleted_at = asyncio.get_running_loop().time()
        await self._delete()
        taken = self._taken.total() - before
        self._again = bool(waiting) or taken + self.parked - parked < len(items)
        return taken

    async def refresh(self) -> None:
        """Counts the pending messages."""
        self.waiting, self.oldest_at = await self._store.backlog()

    async def __aenter__(self) -> OutboxRelay:
        try:
            await self.refresh()
        except ConnectionFailedError:  # the table has another version
            raise
        except Exception as error:  # an unreachable outbox may become reachable again
            self._store_problem = self._report(error)
        self._task = asyncio.get_running_loop().create_task(self._serve())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._wake.wake()
        if self._task is None:
            return
        try:
            await asyncio.wait([self._task], timeout=_STOP_PATIENCE)
        finally:
            if not self._task.done():
                _log.warning("messages of the outbox were not confirmed; they are published again")
                self._task.cancel()
                await asyncio.wait([self._task], timeout=_STOP_PATIENCE)
            with suppress(Exception):  # the claim also ends with the store or the process
                await self._store.release(self)

    async def _submit_heads(self, lanes: dict[Hashable, deque[Pending]]) -> None:
        """Submits the first message of each lane; removes lanes that are done or paused."""
        heads = {lane: queue.popleft() for lane, queue in lanes.items()}
        for lane in [lane for lane, queue in lanes.items() if not queue]:
            del lanes[lane]
        for lane in [lane for lane, item in heads.items() if item.flaw is not None]:
            await self._park(heads.pop(lane), "")
        errors = await self._submit([item.message for item in heads.values()])
        outcomes = list(zip(heads.items(), errors, strict=True))
        taken = [(lane, item) for (lane, item), error in outcomes if error is None]
        self._confirmed += [item.position for _, item in taken]
        stored = Counter(self._transport_of(item.message.topic) for _, item in taken)
        self._taken += stored
        for lane, _ in taken:
            self._troubles.ended(lane)
        failed = [(lane, item, error) for (lane, item), error in outcomes if error is not None]
        refused = [each for each in failed if isinstance(each[2], PublishRefusedError)]
        for _, item, error in refused:
            await self._park(item, str(error))
        passing = [each for each in failed if each not in refused]
        if taken or refused:
            self._recovered()
        for lane, _, _ in passing:
            lanes.pop(lane, None)
        news = None
        for _, item, error in passing if taken else passing[:_PROBES]:
            others = self._transport_of(item.message.topic) in stored
            if await self._trouble(item, error, others=others):
                news = news or error
        if passing and not taken:
            lanes.clear()
            if news is not None:
                self._broker_problem = self._report(news)

    async def _submit(self, messages: Sequence[Message]) -> Results:
        if self._mandatory:
            for message in messages:
                message.mandatory = True
        if self._publisher is None or not self._publisher.unknown(messages):
            return await self._submitter.publish(messages) if messages else ()
        unmade: dict[str, TransportError] = {}
        for topic, message in {message.topic: message for message in messages}.items():
            try:
                await self._publisher.ensure((message,))
            except TransportError as error:
                unmade[topic] = error
        made = [message for message in messages if message.topic not in unmade]
        results = iter(await self._submitter.publish(made) if made else ())
        return [unmade.get(message.topic) or next(results) for message in messages]

    async def _trouble(self, item: Pending, error: Exception, *, others: bool) -> bool:
        """Pauses a lane, or parks its first message. Returns whether the broker may be the
        cause."""
        now = asyncio.get_running_loop().time()
        stored = self._taken[self._transport_of(item.message.topic)]
        found = self._troubles.failed(item, others=others, taken=stored, now=now)
        if found is None:
            await self._park(item, _text(error))
        return bool(found)

    async def _park(self, item: Pending, reason: str) -> None:
        reason = item.flaw or reason
        await self._store.park(item.position, reason)
        self._troubles.ended(item.lane)
        self.parked += 1
        _log.error(
            "a message of the outbox was parked",
            extra={
                "position": item.position,
                "topic": item.message.topic,
                "message_id": item.message.id,
                "error": reason,
            },
        )

    async def _delete(self) -> None:
        """Deletes confirmed messages; they are remembered until the deletion has succeeded."""
        if self._confirmed:
            await self._store.delete(self._confirmed)
            self._confirmed = []

    def _recovered(self) -> None:
        if self._broker_problem is not None:
            _log.info("the outbox is relayed again")
            self._broker_problem = None
            # messages that failed together with all others may succeed now
            self._troubles.retry_all()

    def _report(self, error: Exception) -> str:
        text = f"the outbox is not relayed: {_text(error)}"
        if self.problem is None:
            _log.error("relaying the outbox failed", extra={"error": _text(error)})
        return text

    async def _serve(self) -> None:
        backoff = Backoff(self._poll, LONGEST_PAUSE)
        pause = self._poll
        while not self._stopping:
            self._wake.clear()
            try:
                taken = await self.relay()
            except Exception as error:  # an error of the store
                self._store_problem = self._report(error)
                pause = backoff.next()
            else:
                self._store_problem = None
                backoff.reset()
                if taken:
                    pause = min(_SHORTEST_POLL, self._poll)
                    continue
                pause = min(pause * 2, self._poll)
            if not self._stopping:
                self._wake.wake_after(pause)
                await self._wake.wait()


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, TransportError) else type(error).__name__

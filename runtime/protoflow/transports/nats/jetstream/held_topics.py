"""Messages that are held back, by topic, until a stream stores them.

A message that no stream stores is held back with all later messages of its topic, and they are sent
again in order. So a short time without a stream leader does not fail a publication.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from protoflow import wire
from protoflow.errors import TransportError
from protoflow.message import Message
from protoflow.transports.nats.jetstream.pending import Pending, give_up
from protoflow.transports.nats.jetstream.topology import TopologyManager
from protoflow.transports.nats.wire.connection import NatsConnection

_KNOWN_TOPICS = 10_000
#: Seconds before an unstored message is sent again; the wait doubles up to the second value.
_FIRST_WAIT = 0.02
_LONGEST_WAIT = 1.0
#: It is sent again this many times before the stream is checked.
_PATIENCE = 3
#: After this many checks, the stream counts as missing.
_LOOKS = 2


class HeldTopics:
    """Checks whether a topic has a stream, and creates one if allowed.

    Args:
        connection: the connection.
        topology: knows the existing streams.
        require_subscriber: whether publishing to a topic without a group is an error.
        send: sends a message that must no longer wait.
        in_flight: whether messages of a topic are sent and not answered; they may have to be sent
            first again.

    Attributes:
        creates: whether streams may be created.
        known: the topics that have a stream.
    """

    def __init__(
        self,
        connection: NatsConnection,
        topology: TopologyManager,
        send: Callable[[Pending], None],
        in_flight: Callable[[str], bool],
        *,
        require_subscriber: bool,
    ) -> None:
        self.creates = True
        self.known: set[str] = set()
        self._connection = connection
        self._topology = topology
        self._send = send
        self._in_flight = in_flight
        self._require_subscriber = require_subscriber
        self._heard: set[str] = set()
        self._delays: set[str] = set()
        self._held: dict[str, list[Pending]] = {}
        self._why: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Pending]:
        return (pending for waiting in [*self._held.values()] for pending in [*waiting])

    def must_wait(self, pending: Pending) -> bool:
        """Whether a message must wait, because others of its topic wait or its stream must be
        checked."""
        topic = pending.topic
        if topic in self._held:
            return True
        if topic.startswith("="):
            return False
        if pending.delayed and topic not in self._delays:
            return True
        return topic not in self.known or pending.needs_group

    def unheard(self, message: Message) -> bool:
        """Whether no group is known to consume the topic; dead letters need none."""
        topic = message.topic
        return (
            topic not in self._heard
            and not topic.startswith("=")
            and wire.PF_DEAD_LETTER not in message.metadata
        )

    def add(self, pending: Pending) -> None:
        """Holds a message back until its topic has a stream that stores it."""
        topic = pending.topic
        if (waiting := self._held.get(topic)) is not None:
            waiting.append(pending)
            return
        self._held[topic] = [pending]
        task = asyncio.create_task(self._release(topic))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def expire(self, pending: Pending) -> None:
        """Fails a message whose time has ended."""
        topic = pending.topic
        self._held[topic].remove(pending)
        detail = self._connection.problem or self._why.get(topic) or "no stream stores it"
        pending.fail(f"not confirmed in time: {detail}")

    async def close(self) -> None:
        """Stops checking streams; held messages stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _release(self, topic: str) -> None:
        """Sends held messages as soon as possible, in the order of submission."""
        clock = self._connection.clock
        missing, wait = 0, 0.0
        while waiting := self._held.get(topic):
            misses = max(pending.misses for pending in waiting)
            wait = min(max(2 * wait, _FIRST_WAIT if misses else 0.0), _LONGEST_WAIT)
            if wait:
                await clock.sleep(wait * (0.5 + clock.random()))
            problem = ""
            try:
                if not 0 < misses < _PATIENCE:
                    problem = await self._look(topic, again=bool(misses))
            except TransportError as error:
                self._why[topic] = str(error)
                wait = wait or _FIRST_WAIT
                continue
            if not problem and not self._in_flight(topic):
                break
            missing += bool(problem)
            if missing >= _LOOKS or (problem and not misses):
                for pending in self._held.pop(topic, ()):
                    pending.fail(problem)
                return
            wait = wait or _FIRST_WAIT
        self._let_go(topic)

    async def _look(self, topic: str, *, again: bool) -> str:
        """Returns the problem of a topic's stream, which is created if allowed. Raises
        TransportError if this is unknown now."""
        if self.creates and not topic.startswith("="):
            if problems := await self._topology.ensure_topic(topic):
                return "\n".join(problems)
        elif again and not await self._topology.knows(topic):
            return "no stream stores it"
        if topic.startswith("="):
            return ""
        if late := [pending for pending in self._held[topic] if pending.delayed]:
            if text := await self._topology.ensure_delays(topic, changes=self.creates):
                give_up(self._held[topic], late, text)
            else:
                self._delays.add(topic)
        if self._require_subscriber:
            if await self._topology.has_group(topic):
                self._heard.add(topic)
            else:
                unheard = [pending for pending in self._held[topic] if pending.needs_group]
                text = "no group consumes it, and require_subscriber is set"
                give_up(self._held[topic], unheard, text)
        return ""

    def _let_go(self, topic: str) -> None:
        waiting = self._held.pop(topic, [])
        self._why.pop(topic, None)
        if len(self.known) >= _KNOWN_TOPICS:
            self.known.clear()  # topic names can come from data, so the set is bounded
            self._heard.clear()
            self._delays.clear()
        self.known.add(topic)
        for pending in sorted(waiting, key=lambda one: one.number):
            self._send(pending)

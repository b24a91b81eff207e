"""Sends settlements until the leader of their consumer confirms them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transports.nats.jetstream.buffers import Lease, Source
from protoflow.transports.nats.jetstream.leases import NAK, encode_command
from protoflow.transports.nats.wire.client import FastClient, publication
from protoflow.transports.nats.wire.connection import NatsConnection, subscribe
from protoflow.transports.nats.wire.reader import Received

_ACKED = b"+ACK"
_ACK = b" 4\r\n+ACK\r\n"  # the same as `encode_command`, at a third of the cost
_NS = 1_000_000_000
_LONGEST_DELAY = 1e9
_PATIENCE = 5.0
_REMEMBERED = 10_000


def payload_of(settlement: Settlement) -> bytes:
    """Returns the payload of a settlement."""
    if settlement.action is Action.ACK:
        return _ACKED
    if settlement.action is Action.NACK and 0 < settlement.delay < _LONGEST_DELAY:
        return NAK + b' {"delay": %d}' % int(settlement.delay * _NS)
    return NAK


class _Group:
    """The commands for one consumer. They arrive in order, so one answer confirms them all."""

    __slots__ = ("commands", "leases", "payload", "places", "settling")

    def __init__(self, settling: Settling) -> None:
        self.settling = settling
        self.commands: list[bytes] = []
        self.leases: list[Lease] = []
        self.places: list[int] = []
        self.payload = b""

    def add(self, lease: Lease, place: int, payload: bytes) -> None:
        self.leases.append(lease)
        self.places.append(place)
        self.payload = payload
        if payload is _ACKED:
            self.commands.append(b"PUB " + lease.reply + _ACK)
        else:
            self.commands.append(encode_command(lease.reply, payload))

    def text(self, answer: bytes) -> bytes:
        """Returns all commands, the last one with the subject of the answer."""
        last = publication(self.leases[-1].reply, self.payload, answer)
        return b"".join(self.commands[:-1]) + last if len(self.commands) > 1 else last


class Settling:
    """The settlements of one call; the result of each is UNKNOWN until it is confirmed."""

    def __init__(self) -> None:
        self.results: list[SettleResult] = []
        self.groups: dict[Source, _Group] = {}
        self.open = 0
        self.deadline = 0.0
        self.future: asyncio.Future[Sequence[SettleResult]] = (
            asyncio.get_running_loop().create_future()
        )

    def known(self, result: SettleResult) -> None:
        """Adds a result that is known without asking the server."""
        self.results.append(result)

    def send(self, lease: Lease, settlement: Settlement) -> None:
        """Adds a settlement that must be sent to the server."""
        group = self.groups.get(lease.source)
        if group is None:
            group = self.groups[lease.source] = _Group(self)
        group.add(lease, len(self.results), payload_of(settlement))
        self.results.append(SettleResult.UNKNOWN)

    def finish(self) -> None:
        """Ends the call; unknown results stay unknown."""
        if not self.future.done():
            self.future.set_result(self.results)


class Settler:
    """Sends settlements; each is repeated for some seconds, until its consumer's leader answers.

    If the result is then unknown, the message may be settled again while its lease lasts. An
    acknowledgement without an answer is remembered: if the message is redelivered, it is
    acknowledged again and not handed out.

    Args:
        lease: the duration of a lease in seconds.
    """

    def __init__(self, connection: NatsConnection, lease: float) -> None:
        self._connection = connection
        self._lease = lease
        self._patience = min(_PATIENCE, lease / 2)
        self._inbox = b""
        self._tokens = count()
        self._open: list[Settling] = []
        self._asked: dict[bytes, _Group] = {}
        self._again: list[_Group] = []
        self._unknown: dict[bytes, Lease] = {}
        self._done: dict[tuple[Source, int, float], None] = {}

    @property
    def open(self) -> bool:
        """Whether some settlements are not confirmed."""
        return bool(self._open)

    def held(self, delivery: Delivery) -> Lease | None:
        """Returns the lease of a delivery whose result is unknown; None if it is lost."""
        lease = self._unknown.get(delivery.receipt)
        if lease is None or lease.delivery is not delivery:
            return None
        del self._unknown[delivery.receipt]
        now = self._connection.clock.monotonic()
        return lease if now - lease.renewed < self._lease else None

    def is_done(self, lease: Lease) -> bool:
        """Whether the message was acknowledged before without an answer; then it is acknowledged
        again."""
        if not self._done or _identity(lease) not in self._done:
            return False
        self._connection.write(encode_command(lease.reply, _ACKED))
        return True

    def send(self, settling: Settling) -> asyncio.Future[Sequence[SettleResult]]:
        """Sends settlements; the future gets the result of each."""
        groups = settling.groups
        if not groups:
            settling.finish()
            return settling.future
        settling.open = len(groups)
        settling.deadline = self._connection.clock.monotonic() + self._patience
        self._open.append(settling)
        if self._inbox:
            for group in groups.values():
                self._send_group(group)
        return settling.future

    async def connected(self, client: FastClient) -> None:
        """Sends all unconfirmed settlements."""
        inbox = client.new_inbox() + "."
        await subscribe(client, inbox + "*", self._on_answers)
        self._inbox = inbox.encode()
        groups = [group for settling in self._open for group in settling.groups.values()]
        self._asked.clear()
        self._again.clear()
        for group in groups:
            if group.leases:
                self._remember(group)
                self._send_group(group)

    def disconnected(self) -> None:
        """Notes that open settlements must be sent again with the next client, if there is one."""
        self._inbox = b""
        if self._connection.is_closed:
            for settling in self._open:
                settling.finish()
            self._open.clear()

    def tick(self, now: float) -> None:
        """Repeats settlements without an answer, and gives up late ones."""
        again, self._again = self._again, []
        for group in again:
            if not group.settling.future.done() and self._inbox:
                self._send_group(group)
        while self._open and self._open[0].deadline <= now:
            settling = self._open.pop(0)
            for group in settling.groups.values():
                self._remember(group)
                self._unknown.update((lease.reply, lease) for lease in group.leases)
            settling.finish()
        if not self._open:
            self._asked.clear()
        if len(self._unknown) > _REMEMBERED:
            self._unknown.clear()  # no call waits for them

    async def wait(self) -> None:
        """Returns when all settlements are confirmed."""
        if self._open:
            await asyncio.wait([settling.future for settling in self._open])

    def _send_group(self, group: _Group) -> None:
        token = b"%x" % next(self._tokens)
        self._asked[token] = group
        self._connection.write(group.text(self._inbox + token))

    def _on_answers(self, answers: Sequence[Received]) -> None:
        for subject, _, block, _ in answers:
            group = self._asked.pop(subject[len(self._inbox) :], None)
            if group is None or group.settling.future.done():
                continue
            if block:  # 503: the consumer has no leader at the moment
                self._remember(group)
                self._again.append(group)
            else:
                self._confirmed(group)

    def _confirmed(self, group: _Group) -> None:
        settling = group.settling
        for place in group.places:
            settling.results[place] = SettleResult.DONE
        group.leases.clear()
        group.commands.clear()
        settling.open -= 1
        if not settling.open:
            self._open.remove(settling)
            settling.finish()

    def _remember(self, group: _Group) -> None:
        for lease, command in zip(group.leases, group.commands, strict=True):
            if command.endswith(_ACK):
                self._done[_identity(lease)] = None
        while len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]


def _identity(lease: Lease) -> tuple[Source, int, float]:
    # The time is part of the key, because a new stream starts its sequences again.
    return lease.source, lease.sequence, lease.delivery.time

"""Settlements on their way to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protoflow.message import Action, Settlement, SettleResult
from protoflow.transports.nats.connection import Connection
from protoflow.transports.nats.js_leases import NAK, said

_ACK = b" 4\r\n+ACK\r\n"  # as `said` has it, at a third of the cost
_NS = 1_000_000_000


def command(reply: bytes, settlement: Settlement) -> bytes:
    """What a settlement says on the wire."""
    if settlement.action is Action.ACK:
        return b"PUB " + reply + _ACK
    if settlement.action is Action.NACK and settlement.delay > 0:
        return said(reply, NAK + b' {"delay": %d}' % int(settlement.delay * _NS))
    return said(reply, NAK)


class _Settling:
    """Settlements on their way; said twice they mean the same, so after a lost connection
    they are said again. Then nobody knows: a server that was killed may have forgotten that
    it lent the message, and lends it once more."""

    __slots__ = ("commands", "deadline", "future", "repeated", "results")

    def __init__(self, commands: bytes, results: Sequence[SettleResult], deadline: float) -> None:
        self.commands = commands
        self.results = results
        self.deadline = deadline
        self.repeated = False
        self.future: asyncio.Future[Sequence[SettleResult]] = (
            asyncio.get_running_loop().create_future()
        )

    def finish(self, *, confirmed: bool) -> None:
        if not self.future.done():
            if not confirmed or self.repeated:
                unknown = {SettleResult.DONE: SettleResult.UNKNOWN}
                self.results = [unknown.get(result, result) for result in self.results]
            self.future.set_result(self.results)


class Settler:
    """Sends settlements, and knows that they arrived when a flush behind them is answered.

    An acknowledgement could be answered by itself, but at twice the cost; what the server
    has read before our flush it also does, for it reads in order.

    Args:
        patience: seconds after which nobody knows what came of a settlement.
    """

    def __init__(self, connection: Connection, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        self._open: list[_Settling] = []

    @property
    def open(self) -> bool:
        """Whether some are not confirmed."""
        return bool(self._open)

    def send(
        self, commands: Sequence[bytes], results: Sequence[SettleResult]
    ) -> asyncio.Future[Sequence[SettleResult]]:
        """Sends; the future tells what became of each."""
        deadline = self._connection.clock.monotonic() + self._patience
        settling = _Settling(b"".join(commands), results, deadline)
        if commands:
            self._open.append(settling)
            self._send(settling)
        else:
            settling.finish(confirmed=True)
        return settling.future

    def send_again(self) -> None:
        """Sends everything that was not confirmed, after a lost connection."""
        for settling in self._open:
            settling.repeated = True
            self._send(settling)

    def expire(self, now: float) -> None:
        """Gives up on what was not confirmed in time."""
        while self._open and self._open[0].deadline <= now:
            self._open.pop(0).finish(confirmed=False)

    async def wait(self) -> None:
        """Returns when nothing is open."""
        await asyncio.gather(*(settling.future for settling in self._open))

    def _send(self, settling: _Settling) -> None:
        self._connection.write(settling.commands)
        self._connection.flush().add_done_callback(lambda flushed: self._sent(settling, flushed))

    def _sent(self, settling: _Settling, flushed: asyncio.Future[None]) -> None:
        if flushed.exception() is None and settling in self._open:
            self._open.remove(settling)
            settling.finish(confirmed=True)

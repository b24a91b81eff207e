"""Reads messages in batches, and leaves the rest of the protocol to nats-py.

nats-py matches every message against several patterns, and passes it on through a queue and a task.
Here a message costs a search, a split and two slices, and all messages of one read go to their sink
in one call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from nats.protocol.parser import Parser

_log = logging.getLogger("protoflow.transports.nats")
_END = b"\r\n"
#: Whether the head of a message announces headers.
_HEADED = {b"MSG": False, b"HMSG": True}

#: A message as received: subject, reply subject, block of headers, payload.
Received: TypeAlias = tuple[bytes, bytes, bytes, bytes]
#: Takes the messages of one subscription, in order.
Sink: TypeAlias = Callable[[Sequence[Received]], None]


class Reader(Parser):
    """A parser for nats-py's client.

    Args:
        client: the client that nats-py's parser calls.
        sinks: the receivers of messages, by subscription number; nats-py gets other messages.
    """

    def __init__(self, client: Any, sinks: dict[bytes, Sink]) -> None:  # Any: has no type there
        self._sinks = sinks
        super().__init__(client)  # this also resets

    def reset(self) -> None:
        """Forgets a partly read message."""
        super().reset()
        self._parts: list[bytes] = []
        self._missing = 0

    async def parse(self, data: bytes = b"") -> None:
        """Parses more data."""
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return  # the parts of a large message are joined once, not for each part
        data = b"".join(self._parts)
        self._parts.clear()
        at, foreign = self._read(data, 0)
        while foreign:
            await super().parse(foreign)
            at, foreign = self._read(data, at)
        if at < len(data):
            self._parts.append(data[at:])

    def _read(self, data: bytes, at: int) -> tuple[int, bytes]:
        """Passes on messages until one is incomplete, or until data is for nats-py. Returns that
        data and the position."""
        sinks = self._sinks
        batch: list[Received] = []
        number = foreign = b""
        while (end := data.find(_END, at)) >= 0:
            words = data[at:end].split()
            try:
                head = _HEADED[words[0]] and int(words[-2])
                start, stop = end + 2, end + 2 + int(words[-1])
            except (LookupError, ValueError):  # not a message: nats-py reports it
                foreign, at = data[at : end + 2], end + 2
                break
            if stop + 2 > len(data):
                self._missing = stop + 2 - len(data)
                break
            if words[2] not in sinks:
                foreign, at = data[at : stop + 2], stop + 2
                break
            if words[2] != number:
                self._hand_on(number, batch)
                number, batch = words[2], []
            reply = words[3] if len(words) == (6 if head else 5) else b""
            batch.append((words[1], reply, data[start : start + head], data[start + head : stop]))
            at = stop + 2
        else:
            self._missing = 1
        self._hand_on(number, batch)
        return at, foreign

    def _hand_on(self, number: bytes, batch: list[Received]) -> None:
        # Earlier messages may have removed a sink.
        if batch and (sink := self._sinks.get(number)) is not None:
            try:
                sink(batch)
            except Exception:  # otherwise the client would stop reading without notice
                _log.exception("nats: messages were not taken")

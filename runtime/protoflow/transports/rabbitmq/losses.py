"""Decides about messages that were unconfirmed when the broker closed the channel.

AMQP reports the reason, but not the message. If the reason allows to identify the message, it is
refused and the others may be published again. Otherwise each message is sent alone when it is
published again. So the message that closes the channel again is known, and does not affect others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from protoflow.error_codes import UNCONFIRMED
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transports.rabbitmq.pending import Entry, Key, Result

_TOO_LARGE = re.compile(r"larger than configured max size (\d+)")
_NO_EXCHANGE = re.compile(r"no exchange '([^']*)'")
_EXCHANGE = re.compile(r"exchange '([^']*)'")
_TOPIC = re.compile(r"topic '([^']*)'")
_ACCESS_REFUSED, _NOT_FOUND, _PRECONDITION_FAILED = 403, 404, 406
_REMEMBERED = 10_000

Route = Callable[[Message], tuple[str, str]]
Refusal = Callable[[Message], PublishRefusedError | None]


class Losses:
    """Judges the unconfirmed messages of a lost channel.

    Attributes:
        suspects: the messages that were unconfirmed when a channel closed for an unknown reason.
        alone: whether one of them is in flight, so that nothing else may be sent.
    """

    def __init__(self, route: Route) -> None:
        self.suspects: dict[Key, None] = {}
        self.alone = False
        self._route = route

    def may_send(self, entry: Entry, busy: bool) -> bool:
        """Whether an entry may be sent now; `busy` is whether others are in flight."""
        if entry.key not in self.suspects:
            return True
        if busy:
            return False
        del self.suspects[entry.key]
        self.alone = True
        return True

    def over(self) -> None:
        """Notes that the message that was sent alone has its result."""
        self.alone = False

    def too_large(self, code: int, text: str) -> int | None:
        """The server's limit for bodies, if a message exceeded it."""
        found = _TOO_LARGE.search(text) if code == _PRECONDITION_FAILED else None
        return int(found[1]) if found else None

    def missing(self, code: int, text: str) -> bool:
        """Whether an exchange was missing."""
        return code == _NOT_FOUND and _NO_EXCHANGE.search(text) is not None

    def judge(
        self, entries: Sequence[Entry], code: int, text: str, refusal: Refusal
    ) -> list[tuple[Entry, Result]]:
        """Returns the result of each entry."""
        alone, self.alone = self.alone, False
        guilty = self._guilty(entries, code, text, refusal) or None
        if guilty is None and alone and code:
            guilty = list(entries)
        if guilty is None and code and len(self.suspects) < _REMEMBERED:
            self.suspects |= dict.fromkeys(entry.key for entry in entries)
        known = {id(entry) for entry in guilty or ()}
        return [
            (entry, self._refused(entry, code, text, refusal))
            if id(entry) in known
            else (entry, _unknown(entry, text))
            for entry in entries
        ]

    def _guilty(
        self, entries: Sequence[Entry], code: int, text: str, refusal: Refusal
    ) -> list[Entry] | None:
        """Returns the entries that the reason identifies; None if it identifies none."""
        if self.too_large(code, text):
            return [entry for entry in entries if refusal(entry.message)]
        exchange, topic = _EXCHANGE.search(text), _TOPIC.search(text)
        if code not in (_ACCESS_REFUSED, _NOT_FOUND) or exchange is None:
            return None
        found = []
        for entry in entries:
            to, key = self._route(entry.message)
            if to == exchange[1] and (topic is None or key == topic[1]):
                found.append(entry)
        return found

    def _refused(self, entry: Entry, code: int, text: str, refusal: Refusal) -> PublishError:
        if code == _NOT_FOUND:  # it may be created again
            self.suspects[entry.key] = None
            return _unknown(entry, f"{text}; start a service with topology mode create")
        fix = "; grant the user the right to write" if code == _ACCESS_REFUSED else ""
        return refusal(entry.message) or PublishRefusedError(f"{entry} was refused: {text}{fix}")


def _unknown(entry: Entry, text: str) -> PublishError:
    return PublishError(
        f"rabbitmq did not confirm {entry}, so whether it was stored is unknown: {text}",
        code=UNCONFIRMED,
    )

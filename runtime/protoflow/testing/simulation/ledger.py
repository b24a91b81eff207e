"""The messages of one group, and what happened to each."""

from __future__ import annotations

from dataclasses import dataclass, field

from protoflow.contract.spec import Ordering
from protoflow.message import Delivery
from protoflow.pipeline import HandlerSpec
from protoflow.testing.simulation.process import Process


@dataclass(slots=True, eq=False)
class Run:
    """One run of a handler for one message.

    Attributes:
        handler: the full name of the method.
        message: the id of the message.
        key: the key of the message.
        attempt: the number of this run of the message, from 1.
        process: the process that ran it.
        delivery: the delivery that was handled.
        began: when it began.
        ended: when it ended; None if it is not over, or if its process died.
        outcome: the name of its outcome; empty while `ended` is None.
    """

    handler: str
    message: str
    key: bytes | None
    attempt: int
    process: Process
    delivery: Delivery
    began: float
    ended: float | None = None
    outcome: str = ""


@dataclass(slots=True)
class Record:
    """What happened to one message in one group."""

    index: int
    key: bytes | None
    successes: int = 0
    failures: int = 0
    given_up: int = 0
    deaths: int = 0
    cancelled: int = 0
    retries: int = 0
    #: For each stored retry, the number of failed runs that it carries.
    stored_attempts: set[str] = field(default_factory=set)
    dead: bool = False
    copies: int = 1
    #: The ids of the outputs of each successful run.
    outputs: list[tuple[str, ...]] = field(default_factory=list)
    owes_outputs: bool = False
    #: The attempt of the next run, and the earliest time of this run.
    next_attempt: int = 1
    not_before: float = 0.0
    disturbances: int = -1

    @property
    def done(self) -> bool:
        """Returns whether the group has nothing left to do for the message."""
        return bool(self.successes) or self.dead


@dataclass(slots=True)
class Ledger:
    """The records of one group of one topic."""

    topic: str
    group: str
    spec: HandlerSpec | None = None
    types: dict[str, None] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    running: dict[Run, None] = field(default_factory=dict)
    #: The number of events that permit early repetitions and old attempt numbers.
    disturbances: int = 0
    _by_key: dict[bytes, list[Record]] = field(default_factory=dict)
    _first: dict[bytes, int] = field(default_factory=dict)

    def owe(self, message: str, key: bytes | None) -> None:
        """Adds a message that was published."""
        if (known := self.records.get(message)) is not None:
            known.copies += 1
            return
        line = self._by_key.setdefault(key or b"", [])
        record = self.records[message] = Record(index=len(line), key=key)
        line.append(record)

    def earlier(self, record: Record) -> bool:
        """Returns whether an earlier message of the same key is not done."""
        key = record.key or b""
        line, first = self._by_key[key], self._first.get(key, 0)
        while first < len(line) and line[first].done:
            first += 1
        self._first[key] = first
        return first < record.index

    @property
    def per_key(self) -> bool:
        """Returns whether the contract promises the order of messages with equal keys."""
        return self.spec is not None and self.spec.policy.ordering is Ordering.PER_KEY

"""The files: a message is written once, and linked into every group that is to handle it.

    <root>/<topic>/log/<sequence>.<due>         every message of the topic
    <root>/<topic>/group.<name>/ready/<entry>   what a member of the group may claim
    <root>/<topic>/group.<name>/held/<expiry>.<entry>.<claim>

A file never changes. What changes is its name, so every step is one `os.rename`: it either
happens or raises FileNotFoundError, because another process was first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from protoflow.errors import PublishRefusedError
from protoflow.message import Message


class Entry(NamedTuple):
    """What the name of a file in a group says. Names sort by due time, then by sequence."""

    due: int  # when it may be claimed, in milliseconds since the epoch; 0 is at once
    sequence: str
    deliveries: int = 0
    failures: int = 0
    first_failure: int = 0  # in milliseconds since the epoch
    marks: int = 0  # runs alone that began and did not end

    @classmethod
    def parse(cls, name: str) -> Entry:
        due, sequence, *numbers = name.split(".")
        return cls(int(due), sequence, *map(int, numbers))

    def __str__(self) -> str:
        return ".".join([f"{self.due:015d}", self.sequence, *map(str, self[2:])])


class Held(NamedTuple):
    """What the name of a claimed file says."""

    expiry: int
    entry: Entry
    claim: str

    @classmethod
    def parse(cls, name: str) -> Held:
        expiry, rest = name.split(".", 1)
        entry, claim = rest.rsplit(".", 1)
        return cls(int(expiry), Entry.parse(entry), claim)

    def __str__(self) -> str:
        return f"{self.expiry:015d}.{self.entry}.{self.claim}"


class Group:
    """The files of one group."""

    def __init__(self, topic: Path, name: str) -> None:
        self.path = topic / f"group.{short(name)}"
        self.ready, self.held = self.path / "ready", self.path / "held"

    def create(self, messages: Iterable[tuple[Path, str, int]]) -> None:
        """Creates the group with these messages, unless it exists."""
        self.held.mkdir(parents=True, exist_ok=True)
        complete = self.path / "complete"
        with (self.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two processes one links the messages
            if not complete.exists():
                self.ready.mkdir(exist_ok=True)
                for file, sequence, due in messages:
                    self.add(file, Entry(due, sequence))
                complete.touch()

    def add(self, file: Path, entry: Entry) -> None:
        """Links a message into the group, unless it is there."""
        with contextlib.suppress(FileExistsError):
            os.link(file, self.ready / str(entry))

    def free_expired(self, now: int) -> None:
        """Frees what dead processes held."""
        for name in os.listdir(self.held):
            held = Held.parse(name)
            if held.expiry < now:
                move(self.held / name, self.ready / str(held.entry._replace(due=0)))

    def due(self, now: int) -> Iterator[Entry]:
        """What may be claimed now, in order."""
        entries = map(Entry.parse, sorted(os.listdir(self.ready)))
        return (entry for entry in entries if entry.due <= now)

    def claim(self, entry: Entry, expiry: int) -> Held | None:
        """Claims a message; None if another process was first."""
        counted = entry._replace(due=0, deliveries=entry.deliveries + 1)
        held = Held(expiry, counted, uuid.uuid4().hex)
        return held if move(self.ready / str(entry), self.held / str(held)) else None

    def rename(self, held: Held, new: Held) -> bool:
        """Changes what the name of a claimed file says; False if it is not held any more."""
        return move(self.held / str(held), self.held / str(new))

    def give_back(self, held: Held, entry: Entry) -> bool:
        """Frees a message; False if it was not held any more."""
        return move(self.held / str(held), self.ready / str(entry))

    def finish(self, held: Held) -> bool:
        """Removes a message; False if it was not held any more."""
        return remove(self.held / str(held))


class Topic:
    """The files of one topic."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / short(name)
        self.log = self.path / "log"

    def groups(self) -> list[Group]:
        """The groups that exist."""
        ready = self.path.glob("group.*/ready")
        return [Group(self.path, path.parent.name.removeprefix("group.")) for path in ready]

    def write(self, content: bytes, sequence: str, due: int) -> Path:
        """Writes a message into the log; durable when this returns."""
        file = self.log / f"{sequence}.{due}"
        draft = self.path / f"draft.{sequence}"
        with draft.open("wb") as output:
            output.write(content)
            output.flush()
            os.fsync(output.fileno())
        os.rename(draft, file)
        return file

    def messages(self) -> Iterator[tuple[Path, str, int]]:
        """Every message with its sequence and due time, oldest first."""
        names = sorted(os.listdir(self.log)) if self.log.exists() else []
        for name in names:
            sequence, due = name.split(".")
            yield self.log / name, sequence, int(due)

    def forget(self, before: int) -> None:
        """Removes messages that are older, in nanoseconds since the epoch, but no dead letters."""
        if not (self.path / "dead_letters").exists():
            for file, sequence, _ in self.messages():
                if int(sequence[:20]) < before:
                    remove(file)


def move(source: Path, target: Path) -> bool:
    """Renames a file; False if it is not there."""
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return False
    return True


def remove(file: Path) -> bool:
    """Removes a file; False if it is not there."""
    try:
        os.unlink(file)
    except FileNotFoundError:
        return False
    return True


def short(name: str) -> str:
    """A topic or group as a file name: what is too long is cut, and ends in its hash."""
    if len(name) <= 200:
        return name
    return f"{name[:150]}~{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def encode(message: Message) -> bytes:
    """A message as a line of JSON and the payload. Raises PublishRefusedError."""
    try:
        "".join([*message.metadata, *message.metadata.values()])  # JSON would take more than text
        head = {
            "id": message.id,
            "key": None if message.key is None else message.key.hex(),
            "metadata": dict(message.metadata),
            "tombstone": message.payload is None,
        }
        return json.dumps(head).encode() + b"\n" + (message.payload or b"")
    except (TypeError, ValueError, AttributeError) as error:
        raise PublishRefusedError(f"message {message.id!r} cannot be stored: {error}") from error


def decode(content: bytes, topic: str) -> Message:
    """The message in a file. Raises ValueError."""
    line, _, payload = content.partition(b"\n")
    head = json.loads(line)
    return Message(
        id=head["id"],
        topic=topic,
        payload=None if head["tombstone"] else payload,
        key=None if head["key"] is None else bytes.fromhex(head["key"]),
        metadata=head["metadata"],
    )


class Numbers:
    """Numbers that grow, and that no other process gives."""

    def __init__(self) -> None:
        self._last = 0
        self._owner = uuid.uuid4().hex[:8]

    def next(self) -> str:
        self._last = max(self._last + 1, time.time_ns())
        return f"{self._last:020d}{self._owner}"

"""The files: a message is written once, and linked into every group that is to handle it.

    <root>/<topic>/log/<sequence>.<due>         every message of the topic
    <root>/<topic>/group.<name>/ready/<entry>   what a member of the group may claim
    <root>/<topic>/group.<name>/held/<entry>    what a member has claimed

A file never changes. Its name changes, by `os.rename`, which happens as a whole or raises
FileNotFoundError, because another process was first.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from protoflow.errors import PublishRefusedError
from protoflow.message import Message


class Entry(NamedTuple):
    """The name of a file in a group. Names sort by time, then by sequence."""

    time: int  # in ms: when it may be claimed, and in `held` when the lease ends
    sequence: str
    deliveries: int = 0
    failures: int = 0
    first_failure: int = 0  # in ms
    marks: int = 0  # runs alone that began and did not end
    claim: str = ""  # tells one claim from every other

    @classmethod
    def parse(cls, name: str) -> "Entry":
        time, sequence, deliveries, failures, first_failure, marks, claim = name.split(".")
        counts = int(deliveries), int(failures), int(first_failure), int(marks)
        return cls(int(time), sequence, *counts, claim)

    def __str__(self) -> str:
        return ".".join([f"{self.time:015d}", *map(str, self[1:])])


class Group:
    """The files of one group."""

    def __init__(self, path: Path) -> None:
        self.path, self.ready, self.held = path, path / "ready", path / "held"

    def add(self, file: Path, entry: Entry) -> None:
        """Links a message into the group, unless it is there."""
        with contextlib.suppress(FileExistsError):
            os.link(file, self.ready / str(entry))

    def due(self, now: int) -> Iterator[Entry]:
        """What may be claimed now, in order. Leases that expired end before."""
        for held in map(Entry.parse, os.listdir(self.held)):
            if held.time < now:
                self.free(held, held._replace(time=0))
        entries = map(Entry.parse, sorted(os.listdir(self.ready)))
        return (entry for entry in entries if entry.time <= now)

    def hold(self, source: str, entry: Entry, held: Entry) -> bool:
        """Claims a message, or changes a claim. False: another process was first."""
        return move(self.path / source / str(entry), self.held / str(held))

    def free(self, held: Entry, entry: Entry) -> bool:
        """Lets any member claim a message again. False: it is not held any more."""
        return move(self.held / str(held), self.ready / str(entry._replace(claim="")))


class Topic:
    """The files of one topic."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / short(name)
        self.log = self.path / "log"

    def group(self, name: str) -> Group:
        """The files of a group, whether or not it exists."""
        return Group(self.path / f"group.{short(name)}")

    def create_group(self, name: str, *, from_start: bool) -> None:
        """Creates a group, unless it exists."""
        group = self.group(name)
        group.held.mkdir(parents=True, exist_ok=True)
        complete = group.path / "complete"
        with (group.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process links what the topic has kept
            if not complete.exists():
                group.ready.mkdir(exist_ok=True)
                for file, sequence, due in self.messages() if from_start else ():
                    group.add(file, Entry(due, sequence))
                complete.touch()

    def publish(self, content: bytes, entry: Entry, group: Group | None, *, sync: bool) -> None:
        """Adds a message to the topic and its groups, or to one group alone."""
        self.log.mkdir(parents=True, exist_ok=True)
        draft = self.path / f"draft.{entry.sequence}"
        with draft.open("wb") as output:
            output.write(content)
            output.flush()
            if sync:
                os.fsync(output.fileno())
        if group is None:
            os.link(draft, self.log / f"{entry.sequence}.{entry.time}")
        for each in [group] if group else map(Group, self.path.glob("group.*")):
            if each.ready.is_dir():
                each.add(draft, entry)
        draft.unlink()

    def messages(self) -> Iterator[tuple[Path, str, int]]:
        """Every message that is kept with its sequence and due time, oldest first."""
        for name in sorted(os.listdir(self.log)) if self.log.exists() else ():
            sequence, due = name.split(".")
            yield self.log / name, sequence, int(due)


def move(source: Path, target: Path | None) -> bool:
    """Renames a file, or removes it. False: it is not there."""
    try:
        source.rename(target) if target else source.unlink()
    except FileNotFoundError:
        return False
    return True


def short(name: str) -> str:
    """A topic or group as a file name; a long one is cut and ends in its hash."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:20]
    return name if len(name) <= 200 else f"{name[:150]}~{digest}"


def encode(message: Message, limit: int) -> bytes:
    """A message as a line of JSON and the payload. Raises PublishRefusedError."""
    try:
        payload = b"" if message.payload is None else message.payload
        if len(payload) > limit:
            raise ValueError(f"its payload has more than {limit} bytes")
        "".join([*message.metadata, *message.metadata.values()])  # JSON would take numbers, too
        key = None if message.key is None else message.key.hex()
        head = [message.id, key, message.payload is None, dict(message.metadata)]
        return b"\n".join([json.dumps(head).encode(), payload])
    except (TypeError, ValueError, AttributeError) as error:
        raise PublishRefusedError(f"message {message.id!r} cannot be stored: {error}") from error


def decode(content: bytes, topic: str, sequence: str) -> tuple[Message, str | None]:
    """The message in a file, and why it cannot be read."""
    line, _, payload = content.partition(b"\n")
    try:
        id, key, tombstone, metadata = json.loads(line)
        key = None if key is None else bytes.fromhex(key)
    except (TypeError, ValueError) as error:
        damaged = Message(id=sequence, topic=topic, payload=content)
        return damaged, f"the file is damaged: {error}"
    body = None if tombstone else payload
    return Message(id=id, topic=topic, payload=body, key=key, metadata=metadata), None

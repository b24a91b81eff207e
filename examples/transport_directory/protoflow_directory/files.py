"""The files: a message is written once, and linked into every group that is to handle it.

    <root>/<topic>/log/<entry>                  every message of the topic
    <root>/<topic>/group.<name>/ready/<entry>   what a member of the group may claim
    <root>/<topic>/group.<name>/held/<entry>    what a member has claimed

A file never changes. Its name changes, by `os.rename`, which happens as a whole, so a process that
is killed leaves nothing half done.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from protoflow.message import Message


class Entry(NamedTuple):
    """The name of a file. Names sort by sequence."""

    sequence: str  # begins with when it was published, in ns
    key: str = ""  # the hash of the key
    claim: str = ""  # distinguishes one claim from another
    time: int = 0  # in ms: when it may be claimed, and in `held` when the lease ends
    deliveries: int = 0
    failures: int = 0
    first_failure: int = 0  # in ms
    marks: int = 0  # runs alone that began and did not end

    @classmethod
    def parse(cls, name: str) -> "Entry":
        sequence, key, claim, *numbers = name.split(".")
        return cls(sequence, key, claim, *map(int, numbers))

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @property
    def seconds(self) -> float:
        """When it was published, in seconds since the epoch."""
        return int(self.sequence[:20]) / 1e9


class Group:
    """The files of one group."""

    def __init__(self, path: Path) -> None:
        self.path, self.ready, self.held = path, path / "ready", path / "held"

    def due(self, now: int, lane: Callable[[Entry], str]) -> Iterator[Entry]:
        """What may be claimed now, in order. What is held or waits holds back its lane."""
        blocked = {*map(lane, map(Entry.parse, os.listdir(self.held)))}
        for entry in map(Entry.parse, sorted(os.listdir(self.ready))):
            if lane(entry) == "" or lane(entry) not in blocked:
                if entry.time <= now:
                    yield entry
                else:
                    blocked.add(lane(entry))

    def hold(self, entry: Entry, held: Entry) -> bool:
        """Claims a message, or changes a claim. False: it is not there any more."""
        source = self.held if entry.claim else self.ready
        return move(source / str(entry), self.held / str(held))

    def free(self, held: Entry, entry: Entry) -> bool:
        """Lets any member claim a message again. False: it is not held any more."""
        return move(self.held / str(held), self.ready / str(entry._replace(claim="")))

    def expire(self, now: int) -> None:
        """Frees what is held under a lease that has ended."""
        for held in map(Entry.parse, os.listdir(self.held)):
            if held.time < now:
                self.free(held, held._replace(time=0))

    def size(self) -> int:
        """How many messages are not settled."""
        return len(os.listdir(self.ready)) + len(os.listdir(self.held))


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
        group, draft = self.group(name), Group(self.path / f"draft.{short(name)}")
        if group.path.exists():
            return
        shutil.rmtree(draft.path, ignore_errors=True)  # of a process that was killed here
        for path in (draft.ready, draft.held):
            path.mkdir(parents=True)
        for entry in self.entries() if from_start else ():
            os.link(self.log / entry, draft.ready / entry)
        draft.path.rename(group.path)

    def publish(self, content: bytes, entry: Entry, group: Group | None, *, sync: bool) -> None:
        """Adds a message to the topic and its groups, or to one group alone."""
        self.log.mkdir(parents=True, exist_ok=True)
        draft = self.path / str(entry)
        with draft.open("wb") as output:
            output.write(content)
            output.flush()
            if sync:
                os.fsync(output.fileno())
        for each in [group] if group else map(Group, self.path.glob("group.*")):
            os.link(draft, each.ready / draft.name)
        move(draft, None if group else self.log / draft.name)

    def entries(self, after: str = "") -> list[str]:
        """The names of the messages that are kept, oldest first."""
        return sorted(file.name for file in self.log.glob("*") if file.name > after)

    def remove(self, names: Iterable[str]) -> int:
        """Removes messages that are kept. Returns how many there were."""
        return sum(move(self.log / name, None) for name in names)


def move(source: Path, target: Path | None) -> bool:
    """Renames a file, or removes it. False: it is not there."""
    try:
        source.rename(target) if target else source.unlink()
    except FileNotFoundError:
        return False
    return True


def short(name: str) -> str:
    """A topic or group as a file name; a long one is cut and ends in its hash."""
    return name if len(name) <= 200 else f"{name[:150]}~{digest(name.encode())}"


def digest(value: bytes) -> str:
    """The hash of a key or name, as part of a file name; empty for nothing."""
    return hashlib.sha256(value).hexdigest()[:20] if value else ""


def encode(message: Message, limit: int) -> bytes:
    """A message as a line of JSON and the payload. Raises ValueError or TypeError."""
    payload = b"" if message.payload is None else message.payload
    if len(payload) > limit:
        raise ValueError(f"its payload has more than {limit} bytes")
    "".join([*message.metadata, *message.metadata.values()])  # JSON would take numbers, too
    key = None if message.key is None else message.key.hex()
    head = [message.id, key, message.payload is None, dict(message.metadata)]
    return b"\n".join([json.dumps(head).encode(), payload])


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

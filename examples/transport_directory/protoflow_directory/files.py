"""The files: a message is written once, and linked into every group that must handle it.

    <root>/<topic>/log/<entry>                  every message of the topic
    <root>/<topic>/group.<name>/ready/<entry>   messages that a member of the group may claim
    <root>/<topic>/group.<name>/held/<entry>    messages that a member has claimed

The content of a file never changes. Changes are made to its name by `os.rename`, which is atomic,
so a process that is killed leaves no change half done.
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

    sequence: str  # begins with the time of publishing, in ns
    key: str = ""  # the hash of the key
    claim: str = ""  # a unique id of the claim
    time: int = 0  # in ms: when it may be claimed; in `held`, when the lease ends
    deliveries: int = 0
    failures: int = 0
    first_failure: int = 0  # in ms
    marks: int = 0  # runs in isolation that began and did not end

    @classmethod
    def parse(cls, name: str) -> "Entry":
        sequence, key, claim, *numbers = name.split(".")
        return cls(sequence, key, claim, *map(int, numbers))

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @property
    def seconds(self) -> float:
        """The time of publishing, in seconds since the epoch."""
        return int(self.sequence[:20]) / 1e9


class Group:
    """The files of one group."""

    def __init__(self, path: Path) -> None:
        self.path, self.ready, self.held = path, path / "ready", path / "held"

    def due(self, now: int, lane: Callable[[Entry], str]) -> Iterator[Entry]:
        """Yields the entries that may be claimed now, in order, without those of blocked lanes."""
        blocked = {*map(lane, map(Entry.parse, os.listdir(self.held)))}
        for entry in map(Entry.parse, sorted(os.listdir(self.ready))):
            if lane(entry) == "" or lane(entry) not in blocked:
                if entry.time <= now:
                    yield entry
                else:
                    blocked.add(lane(entry))

    def hold(self, entry: Entry, held: Entry) -> bool:
        """Claims a message, or changes a claim. Returns False if the message is gone."""
        source = self.held if entry.claim else self.ready
        return move(source / str(entry), self.held / str(held))

    def free(self, held: Entry, entry: Entry) -> bool:
        """Lets any member claim a message again. Returns False if it is not held any more."""
        return move(self.held / str(held), self.ready / str(entry._replace(claim="")))

    def expire(self, now: int) -> None:
        """Frees messages whose lease has ended."""
        for held in map(Entry.parse, os.listdir(self.held)):
            if held.time < now:
                self.free(held, held._replace(time=0))

    def size(self) -> int:
        """Returns how many messages are not settled."""
        return len(os.listdir(self.ready)) + len(os.listdir(self.held))


class Topic:
    """The files of one topic."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / short(name)
        self.log = self.path / "log"

    def group(self, name: str) -> Group:
        """Returns the files of a group, whether or not it exists."""
        return Group(self.path / f"group.{short(name)}")

    def create_group(self, name: str, *, from_start: bool) -> None:
        """Creates a group, unless it exists."""
        group, draft = self.group(name), Group(self.path / f"draft.{short(name)}")
        if group.path.exists():
            return
        # left behind by a process that was killed here
        shutil.rmtree(draft.path, ignore_errors=True)
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
        """Returns the names of the stored messages, oldest first."""
        return sorted(file.name for file in self.log.glob("*") if file.name > after)

    def remove(self, names: Iterable[str]) -> int:
        """Removes stored messages; returns how many existed."""
        return sum(move(self.log / name, None) for name in names)


def move(source: Path, target: Path | None) -> bool:
    """Renames or removes a file. Returns False if it does not exist."""
    try:
        source.rename(target) if target else source.unlink()
    except FileNotFoundError:
        return False
    return True


def short(name: str) -> str:
    """Returns a file name for a topic or group; a long name is cut and ends in its hash."""
    return name if len(name) <= 200 else f"{name[:150]}~{digest(name.encode())}"


def digest(value: bytes) -> str:
    """Returns the hash of a key or name as part of a file name; empty for an empty value."""
    return hashlib.sha256(value).hexdigest()[:20] if value else ""


def encode(message: Message, limit: int) -> bytes:
    """Returns a line of JSON followed by the payload. Raises ValueError or TypeError."""
    payload = b"" if message.payload is None else message.payload
    if len(payload) > limit:
        raise ValueError(f"its payload has more than {limit} bytes")
    "".join([*message.metadata, *message.metadata.values()])  # JSON would accept numbers, too
    key = None if message.key is None else message.key.hex()
    head = [message.id, key, message.payload is None, dict(message.metadata)]
    return b"\n".join([json.dumps(head).encode(), payload])


def decode(content: bytes, topic: str, sequence: str) -> tuple[Message, str | None]:
    """Returns the message in a file, and the reason if it cannot be read."""
    line, _, payload = content.partition(b"\n")
    try:
        id, key, tombstone, metadata = json.loads(line)
        key = None if key is None else bytes.fromhex(key)
    except (TypeError, ValueError) as error:
        damaged = Message(id=sequence, topic=topic, payload=content)
        return damaged, f"the file is damaged: {error}"
    body = None if tombstone else payload
    return Message(id=id, topic=topic, payload=body, key=key, metadata=metadata), None

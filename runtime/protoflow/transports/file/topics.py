"""Topics and groups: folders that are made, verified and kept short.

    <directory>/format                          the version of everything below
    <directory>/<topic>/topic.json              salt, and whether it keeps dead letters
    <directory>/<topic>/append.lock             held while something is appended
    <directory>/<topic>/<position>.log          a segment, with frames of records
    <directory>/<topic>/<position>.torn         what was cut off a segment after a crash
    <directory>/<topic>/groups/<group>/lock     held while the journal is read and written
    <directory>/<topic>/groups/<group>/journal  frames of changes

Other files are ignored.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
import uuid
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from protoflow.contract.spec import Start
from protoflow.error_codes import DAMAGED, FILE_PLACE, OTHER_VERSION, TOPOLOGY_MISSING
from protoflow.errors import ConnectionFailedError, TopologyError, TransportError
from protoflow.transport.interface import SubscriptionSettings, Topology, TopologyMode
from protoflow.transports.file import names
from protoflow.transports.file.context import FileContext
from protoflow.transports.file.disk import make_folder, read_file, replace_file, sync_folder
from protoflow.transports.file.journal import JOURNAL, Journal
from protoflow.transports.file.log_appender import LogAppender
from protoflow.transports.file.log_reader import LogReader, bases, segment

_FORMAT: Final = "format"
_DRAFT: Final = re.compile(rf"{_FORMAT}\.[0-9a-f]{{32}}\Z")
_VERSION: Final = 1
_TOPIC: Final = "topic.json"
_GROUPS: Final = "groups"
#: The number of leases after which the group of a process that does not renew is removed.
_FORGOTTEN: Final = 20


class Topics:
    """The topics of a directory. Its methods are called in the threads of the context."""

    def __init__(self, context: FileContext) -> None:
        self._context = context
        self._root = context.root
        self._kept: set[str] = set()

    def open(self) -> None:
        """Creates the directory, or checks that it is one of ours. Raises ConnectionFailedError."""
        try:
            make_folder(self._root)
            path = f"{self._root}/{_FORMAT}"
            if not os.path.exists(path):
                # Others that open it now have drafts of the file there.
                others = [each for each in os.listdir(self._root) if not _DRAFT.match(each)]
                if others and not os.path.exists(path):
                    raise ConnectionFailedError(
                        f"{self._root} has other files and no file {_FORMAT}; name an empty"
                        " directory in the URL",
                        code=FILE_PLACE,
                    )
                replace_file(path, json.dumps({"version": _VERSION}).encode(), alone=False)
            version = _read(path).get("version")
        except (OSError, TransportError) as error:
            raise ConnectionFailedError(
                f"cannot use {self._root}: {error}", code=FILE_PLACE
            ) from error
        if version != _VERSION:
            raise ConnectionFailedError(
                f"{self._root} was made by another version of Protoflow (its format is"
                f" {version!r:.20}, this one knows {_VERSION})",
                code=OTHER_VERSION,
            )

    def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies topics and groups. Raises TopologyError."""
        joined = [each for each in topology.subscriptions if not each.broadcast]
        kept = {name for each in topology.subscriptions for name in each.dead_letter_topics}
        self._kept |= kept
        wanted = {*topology.topics, *(each.topic for each in topology.subscriptions)}
        if mode is TopologyMode.CREATE:
            for topic in sorted(wanted | kept):
                self.make(topic)
            for each in joined:
                self.join(each)
            return
        if mode is TopologyMode.NONE:
            return
        missing = [f"topic {each}" for each in sorted(wanted | kept) if not self.exists(each)]
        missing += [
            f"group {each.group} of topic {each.topic}"
            for each in joined
            if not self.has_group(each.topic, each.group)
        ]
        if missing:
            raise TopologyError(
                f"{self._root}: missing: {', '.join(missing)}; start once with topology mode"
                " create",
                code=TOPOLOGY_MISSING,
            )

    def exists(self, topic: str) -> bool:
        """Whether a topic was made."""
        return os.path.exists(f"{self.folder(topic)}/{_TOPIC}")

    def folder(self, topic: str) -> str:
        """Returns the folder of a topic."""
        return f"{self._root}/{names.folder(topic)}"

    def group(self, topic: str, group: str) -> str:
        """Returns the folder of a group."""
        return f"{self.folder(topic)}/{_GROUPS}/{names.folder(group)}"

    def has_group(self, topic: str, group: str) -> bool:
        """Whether a group was made."""
        return os.path.exists(f"{self.group(topic, group)}/{JOURNAL}")

    def make(self, topic: str) -> None:
        """Creates a topic, unless it exists, and notes whether it keeps dead letters."""
        path = self.folder(topic)
        if self.exists(topic):
            self._note_dead_letters(topic)
            return
        draft = f"{self._root}/.{uuid.uuid4().hex}"
        make_folder(f"{draft}/{_GROUPS}")
        settings = {
            "version": _VERSION,
            "topic": topic,
            "salt": secrets.randbits(64),
            "keeps_dead_letters": topic in self._kept,
        }
        replace_file(f"{draft}/{_TOPIC}", json.dumps(settings).encode())
        try:
            os.rename(draft, path)
        except OSError:
            if not self.exists(topic):  # another process has made it
                raise
            _discard(draft)
            self._note_dead_letters(topic)
        sync_folder(self._root)

    def reader(self, topic: str) -> LogReader:
        """Returns a reader of a topic. Raises TopologyError."""
        return LogReader(self.folder(topic), self._salt(topic))

    def appender(self, topic: str) -> LogAppender:
        """Returns an appender to a topic, which is created if necessary."""
        self.make(topic)
        options = self._context.options
        durable = options.fsync != "never"
        return LogAppender(
            self.folder(topic), self._salt(topic), options.segment_bytes, durable=durable
        )

    def join(self, settings: SubscriptionSettings) -> str:
        """Creates a group, unless it exists, and returns its folder."""
        self.make(settings.topic)
        if settings.broadcast:
            self._remove_dead_broadcasts(settings.topic, settings.lease)
            name = names.broadcast(settings.group)
            path = f"{self.folder(settings.topic)}/{_GROUPS}/{name}"
        else:
            path = self.group(settings.topic, settings.group)
        if not os.path.exists(f"{path}/{JOURNAL}"):
            make_folder(path)
            with contextlib.closing(self.reader(settings.topic)) as reader:
                latest = settings.broadcast or settings.start is Start.LATEST
                position = reader.end() if latest else reader.first()
                Journal.create(path, position, reader.sequence_before(position))
        return path

    def journals(self, topic: str) -> list[Journal]:
        """Returns the journals of a topic's groups."""
        path = f"{self.folder(topic)}/{_GROUPS}"
        folders = [f"{path}/{name}" for name in sorted(os.listdir(path))]
        return [Journal(each) for each in folders if os.path.exists(f"{each}/{JOURNAL}")]

    def drop_old_segments(self, topic: str) -> None:
        """Removes segments as the options say; the last that has messages always stays."""
        with contextlib.suppress(FileNotFoundError):  # another process has removed it, or the topic
            self._drop_old_segments(topic)

    def _drop_old_segments(self, topic: str) -> None:
        path, options = self.folder(topic), self._context.options
        if not options.retention and not options.retention_bytes:
            return
        if topic in self._kept or not self.exists(topic):
            return
        if self._settings(topic).get("keeps_dead_letters"):
            return
        found = bases(path)
        sizes = {base: os.stat(segment(path, base)).st_size for base in found}
        needed = self.needed(topic)
        oldest, total = time.time() - options.retention, sum(sizes.values())
        for base, following in pairwise(found):
            too_many = 0 < options.retention_bytes < total
            file = segment(path, base)
            too_old = bool(options.retention) and os.stat(file).st_mtime < oldest
            last = not sizes[following] and following == found[-1]
            if last or following > needed or not (too_many or too_old):
                break
            os.unlink(file)
            total -= sizes[base]

    def needed(self, topic: str) -> float:
        """Returns the first position that a group needs."""
        if self._context.options.retention_before_groups:
            return float("inf")
        low = float("inf")
        for journal in self.journals(topic):
            with contextlib.suppress(TopologyError):  # the group has ended meanwhile
                low = min(low, journal.read().low)
        return low

    def _remove_dead_broadcasts(self, topic: str, lease: float) -> None:
        """Removes the groups of processes that were killed long ago."""
        ended = self._context.settings.clock.now() - _FORGOTTEN * lease
        for journal in self.journals(topic):
            if names.is_broadcast(os.path.basename(journal.path)):
                with contextlib.suppress(OSError, TransportError):  # it was removed meanwhile
                    state = journal.read()
                    written = os.stat(f"{journal.path}/{JOURNAL}").st_mtime
                    idle = time.time() - written > _FORGOTTEN * lease
                    if len(state.expired(ended)) == len(state.members) and (state.members or idle):
                        remove_group(journal.path)

    def _note_dead_letters(self, topic: str) -> None:
        """A topic that was made for messages may keep dead letters later."""
        if topic in self._kept and not (settings := self._settings(topic))["keeps_dead_letters"]:
            noted = json.dumps({**settings, "keeps_dead_letters": True}).encode()
            replace_file(f"{self.folder(topic)}/{_TOPIC}", noted, alone=False)

    def _salt(self, topic: str) -> int:
        return int(self._settings(topic)["salt"])

    def _settings(self, topic: str) -> dict[str, int]:
        try:
            settings = _read(f"{self.folder(topic)}/{_TOPIC}")
        except FileNotFoundError:
            raise TopologyError(
                f"topic {topic} does not exist in {self._root}", code=TOPOLOGY_MISSING
            ) from None
        if settings.get("version") != _VERSION:
            raise TopologyError(
                f"topic {topic} was made by another version of Protoflow", code=OTHER_VERSION
            )
        return settings


def remove_group(path: str) -> None:
    """Removes the folder of a group, unless it is gone."""
    with contextlib.suppress(FileNotFoundError):
        _remove(path, os.listdir(path))


def _discard(draft: str) -> None:
    os.rmdir(f"{draft}/{_GROUPS}")
    _remove(draft, [_TOPIC])


def _remove(path: str, files: Iterable[str]) -> None:
    for name in files:
        os.unlink(f"{path}/{name}")
    os.rmdir(path)


def _read(path: str) -> dict[str, int]:
    try:
        found = json.loads(read_file(path))
    except ValueError as error:
        raise TransportError(
            f"{path} is damaged: {error}; restore it from a copy", code=DAMAGED
        ) from error
    return dict(found)

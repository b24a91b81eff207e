"""Dead letters: the messages that a dead-letter topic keeps."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from protoflow.errors import NotReplayableError, PublishError
from protoflow.message import Message
from protoflow.transport import DeadLetterRecord
from protoflow.transport.kit.replay import DeadLetterSources, replay_in_order

from protoflow_directory.files import Group, decode, move

if TYPE_CHECKING:
    from protoflow_directory.transport import DirectoryTransport


class DirectoryDeadLetters:
    """Implements `DeadLetterStore`."""

    def __init__(self, transport: "DirectoryTransport") -> None:
        self.transport = transport
        self.sources = DeadLetterSources()

    async def count(self, topic: str) -> int:
        """How many there are."""
        return len([*self.transport.topic(topic).messages()])

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator["Scan"]:
        """Begins a scan; the store reads all messages, whatever `ids` says."""
        if after and not (len(after) == 28 and after[:20].isdecimal()):
            raise ValueError(f"after: {after!r:.100} is not the position of a dead letter")
        files = [each for each in self.transport.topic(topic).messages() if each[1] > after]
        yield Scan(self, topic, files)

    async def clear(self, topic: str) -> int:
        """Removes all."""
        return sum(move(file, None) for file, *_ in self.transport.topic(topic).messages())


class Scan:
    """Implements `DeadLetterScan`."""

    def __init__(
        self, store: DirectoryDeadLetters, topic: str, files: Sequence[tuple[Path, str, int]]
    ) -> None:
        self._store = store
        self._files = {sequence: file for file, sequence, _ in files}
        self._records = self._read(topic)

    def _read(self, topic: str) -> Iterator[DeadLetterRecord]:
        for sequence, file in self._files.items():
            if file.exists():
                message, _ = decode(file.read_bytes(), topic, sequence)
                seconds = int(sequence[:20]) / 1e9
                yield DeadLetterRecord(message=message, position=sequence, time=seconds)

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """The next records."""
        return await self._store.transport.run(lambda: [*islice(self._records, limit)])

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records, and removes those that were written."""
        transport, groups = self._store.transport, dict[str, Group | None]()

        async def address(record: DeadLetterRecord) -> Message:
            message, name = self._store.sources.replayed(record, to_origin=to_origin)
            group = None if to_origin else transport.topic(message.topic).group(name)
            if group and not group.ready.is_dir():
                raise NotReplayableError(f"group {name!r:.100} does not exist")
            groups[record.position] = group
            return message

        async def publish(
            records: Sequence[DeadLetterRecord], messages: Sequence[Message]
        ) -> Sequence[PublishError | None]:
            pairs = zip(messages, records, strict=True)
            return [
                await transport.run(transport.publish, message, groups[record.position])
                for message, record in pairs
            ]

        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Removes records."""
        for record in records:
            move(self._files[record.position], None)

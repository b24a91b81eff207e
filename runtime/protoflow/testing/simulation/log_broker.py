"""The simulated broker of logs: partitions, committed offsets, members and generations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from zlib import crc32

from protoflow.contract.spec import Start
from protoflow.counted import counted
from protoflow.error_codes import LEASE_LOST
from protoflow.errors import PublishError, TransportError
from protoflow.message import Message
from protoflow.testing.simulation.broker import SimulatedBroker
from protoflow.testing.simulation.holds import Witness
from protoflow.testing.simulation.log_state import (
    PARTITIONS,
    GroupState,
    LogMember,
    LogState,
    Record,
    Shard,
    share,
)
from protoflow.testing.simulation.loop import OUTSIDE, SimulatedLoop
from protoflow.testing.simulation.profiles import Profile
from protoflow.transport.lag import Lag
from protoflow.transports.memory.group import Group

#: The topic into which the messages of a group are replayed, with the topic's partitions.
_REPLAYS = "retry.0"
#: Seconds of silence after which a member is removed; seconds that a rebalance waits for members.
_SESSION, _REBALANCE = 10.0, 45.0
_HEARTBEAT = 3.0


class LogBroker(SimulatedBroker):
    """Keeps topics with partitions, and groups that commit offsets."""

    def __init__(self, loop: SimulatedLoop, profile: Profile, witness: Witness) -> None:
        super().__init__(loop, profile, witness)
        self.state = LogState(self.replay, self._store)
        self.groups: dict[tuple[str, str], GroupState] = {}
        self._topics: dict[str, list[list[Record]]] = {}
        self._rungs: dict[str, tuple[GroupState, str]] = {}
        self._turn = 0
        self._beating = False

    def _logs(self, topic: str) -> list[list[Record]]:
        return self._topics.setdefault(topic, [[] for _ in range(PARTITIONS)])

    def open(self, group: Group, start: Start) -> GroupState:
        """Returns the state of a group; creates it if necessary, starting at `start`."""
        place = (group.topic, group.name)
        if place not in self.groups:
            logs = dict[Shard, list[Record]](enumerate(self._logs(group.topic)))
            logs |= {f"{_REPLAYS}/{number}": [] for number in range(PARTITIONS)}
            state = self.groups[place] = GroupState(group, logs)
            if start is Start.LATEST:
                state.committed = {shard: (len(log), None) for shard, log in logs.items()}
                state.finished = {shard: {*range(len(log))} for shard, log in logs.items()}
        return self.groups[place]

    def rung(self, state: GroupState, seconds: float) -> str:
        """Returns the group's topic for retries that wait this long."""
        shard = f"retry.{seconds:g}"
        name = f"{state.handle.topic}..{state.handle.name}..{shard}"
        self._rungs[name] = (state, shard)
        if shard not in state.logs:
            state.logs[shard] = []
            self.rebalance(state)
        return name

    # Publishing.

    def _store(self, message: Message) -> PublishError | None:
        if message.topic in self._rungs:
            state, shard = self._rungs[message.topic]
            self._witness.deferred(state.handle, message)
            self._append(state.logs[shard], message, state)
            return None
        topic = self.state.topic(message.topic)
        at = self._partition_of(message.key)
        if topic.dead_letters is None:
            self._witness.stored(message, self._turn)
        else:
            super()._store(message)
        self._append(self._logs(message.topic)[at], message, None)
        return None

    def _partition_of(self, key: bytes | None) -> int:
        self._turn += 1
        return (self._turn if key is None else crc32(key)) % PARTITIONS

    def replay(self, group: Group, message: Message) -> None:
        """Stores a dead letter in the group's topic for replays."""
        state = self.open(group, Start.EARLIEST)
        at = self._partition_of(message.key)
        self._append(state.logs[f"{_REPLAYS}/{at}"], message, state)

    def _append(self, log: list[Record], message: Message, state: GroupState | None) -> None:
        if message.deduplication_id is not None or message.mandatory:
            message = replace(message, deduplication_id=None, mandatory=False)
        log.append(Record(message, self.now()))
        for each in self.groups.values() if state is None else (state,):
            if each is state or each.handle.topic == message.topic:
                for member in each.members:
                    member.wake()

    # Members.

    def join(self, state: GroupState, member: LogMember) -> None:
        """Lets a member join, or join again; the last member that joins ends the rebalance."""
        new = member not in state.members
        state.members[member] = self._loop.now
        if new and state.balanced:
            self.rebalance(state)
        state.joined[member] = None
        self._beat()
        self._complete(state)

    def leave(self, state: GroupState, member: LogMember) -> None:  # type: ignore[override]
        """Removes a member."""
        if state.members.pop(member, None) is not None:
            member.generation = 0
            self.rebalance(state)

    def rebalance_all(self) -> None:
        """See `SimulatedBroker.rebalance_all`."""
        for state in self.groups.values():
            self.rebalance(state)

    def rebalance(self, state: GroupState) -> None:
        """Makes every member join again; members that do not join in time are removed."""
        self._witness.disturbed(state.handle)
        state.balanced = False
        state.joined.clear()
        state.generation += 1
        for member in [*state.members]:
            member.rebalancing()
        generation = state.generation
        self._loop.call_later(_REBALANCE, self._expire_members, state, generation, context=OUTSIDE)
        self._complete(state)

    def _expire_members(self, state: GroupState, generation: int) -> None:
        if state.generation != generation or state.balanced:
            return
        for member in [each for each in state.members if each not in state.joined]:
            del state.members[member]
            member.generation = 0
        self._complete(state)

    def _complete(self, state: GroupState) -> None:
        if state.balanced or any(member not in state.joined for member in state.members):
            return
        state.balanced = True
        members = [*state.members]
        state.assigned = {
            member: tuple(share(state.logs, at, len(members))) for at, member in enumerate(members)
        }
        for member in members:
            member.generation = state.generation
            member.wake()

    def _beat(self) -> None:
        if not self._beating:
            self._beating = True
            self._loop.call_later(_HEARTBEAT, self._beats, context=OUTSIDE)

    def _beats(self) -> None:
        self._beating = False
        now = self._loop.now
        for state in self.groups.values():
            for member in [*state.members]:
                if member.reachable and not self.down:
                    state.members[member] = now
                elif now - state.members[member] > _SESSION:
                    self.leave(state, member)
        if any(state.members for state in self.groups.values()):
            self._beat()

    # Reading and committing.

    def assignment(
        self, state: GroupState, member: LogMember
    ) -> tuple[int, Mapping[Shard, tuple[int, Any]]]:
        """Returns the generation of a member, and its partitions with their committed offsets."""
        if not state.balanced or member not in state.assigned:
            raise TransportError("the group rebalances")
        shards = state.assigned[member]
        return member.generation, {shard: state.committed.get(shard, (0, None)) for shard in shards}

    def read(
        self, state: GroupState, member: LogMember, generation: int, positions: Mapping[Shard, int]
    ) -> Mapping[Shard, list[tuple[int, Record]]]:
        """Returns the records after the given positions."""
        self.check(state, member, generation)
        found: dict[Shard, list[tuple[int, Record]]] = {}
        for shard, position in positions.items():
            records = state.logs[shard][position : position + 50]
            if records:
                found[shard] = [*enumerate(records, position)]
                self.lent += len(records)
        return found

    def check(self, state: GroupState, member: LogMember, generation: int) -> None:
        """Raises TransportError if the member does not belong to this generation."""
        if member not in state.members or member.generation != generation or not state.balanced:
            raise TransportError("the member's generation has ended", code=LEASE_LOST)

    def commit(
        self, state: GroupState, member: LogMember, generation: int,
        offsets: Mapping[Shard, tuple[int, Any]],
    ) -> None:  # fmt: skip
        """Stores offsets and metadata. Members may also commit while the group rebalances."""
        if member not in state.members or member.generation != generation:
            raise TransportError("the member's generation has ended", code=LEASE_LOST)
        for shard, (offset, metadata) in offsets.items():
            state.committed[shard] = (offset, metadata)
            known = state.finished.setdefault(shard, set())
            done = [at for at in range(offset) if at not in known]
            done += sorted(at for at in metadata.finished if at not in known)
            for at in done:
                known.add(at)
                self._witness.committed(state.handle, state.logs[shard][at].message)

    def holds_receipt(self, receipt: Any) -> bool:
        """See `SimulatedBroker.holds_receipt`. Broker and process must agree on the owner."""
        return bool(receipt.live and not receipt.leaving)

    def ended(self, receipt: Any) -> None:
        """See `SimulatedBroker.ended`: partitions have no leases."""

    def lag(self, topic: str, group: str) -> Lag:
        """See `SimulatedBroker.lag`."""
        state = self.groups.get((topic, group))
        if state is None:
            return Lag(messages=0)
        logs = state.logs.items()
        left = sum(len(log) - len(state.finished.get(shard, ())) for shard, log in logs)
        return Lag(messages=left)

    def unfinished(self) -> list[str]:
        """See `SimulatedBroker.unfinished`."""
        left: list[str] = []
        for (topic, group), state in self.groups.items():
            count = sum(
                len(log) - len(state.finished.get(shard, ())) for shard, log in state.logs.items()
            )
            if count:
                left.append(f"{counted(count, 'message')} of {topic} in group {group}")
        return left

"""Checks a trace against the rules of a broker, with an automaton per message and per shard."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from protoflow.testing.broker_traces.events import Event
from protoflow.testing.broker_traces.message_automaton import MessageAutomaton, Refused
from protoflow.testing.broker_traces.rules import RULES, Rules
from protoflow.testing.broker_traces.shard_automaton import KeyOrder, ShardOrder

#: Events that end every delivery of a process, of a group, or of a shard.
_ENDS = ("crash", "closed", "stopped", "revoke", "revoked")


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An event that the rules do not allow.

    Attributes:
        group: topic and group.
        message: the id of the message.
        shard: the shard.
        step: the number of the event in the trace, from 1.
        text: what happened, and which rule forbids it.
    """

    group: str
    message: str
    shard: str
    step: int
    text: str

    def __str__(self) -> str:
        shard = f", shard {self.shard}" if self.shard else ""
        return f"{self.group}: message {self.message}{shard}, step {self.step}: {self.text}"


class _Group:
    """The automata of one group."""

    def __init__(self, rules: Rules, join: Event) -> None:
        ordering, lease = join.detail.split()
        self.topic = join.topic
        self.name = join.group
        self.lease = float(lease)
        self.ordered = ordering != "NONE"
        self.rules = rules
        self.messages: dict[str, MessageAutomaton] = {}
        self.keys = KeyOrder()
        self.shards: dict[str, ShardOrder] = {}


class TraceChecker:
    """Checks the events of a trace, ordered by time. The cost of an event does not grow.

    Args:
        rules: the rules of the broker.

    Attributes:
        found: the disagreements; a message is ignored after its first.
        events: the number of events that were checked.
    """

    def __init__(self, rules: Rules) -> None:
        self.found: list[Disagreement] = []
        self.events = 0
        self._rules = rules
        self._groups: dict[str, _Group] = {}
        self._held: dict[str, dict[tuple[str, int], Event]] = {}
        self._disturbances: dict[str, list[float]] = {}
        self._refused: set[tuple[str, str]] = set()

    @property
    def steps(self) -> int:
        """The number of steps that the automata made."""
        return sum(one.steps for group in self._groups.values() for one in group.messages.values())

    @property
    def messages(self) -> int:
        """The number of automata of messages."""
        return sum(len(group.messages) for group in self._groups.values())

    def groups_of(self, joins: Iterable[Event]) -> None:
        """Creates the groups that join later, because they also get earlier messages."""
        for join in joins:
            if join.kind == "join" and join.group not in self._groups:
                self._groups[join.group] = _Group(self._rules, join)

    def take(self, event: Event) -> None:
        """Checks one event."""
        self.events += 1
        if event.kind in self._rules.disturbances:
            self._disturbances.setdefault(event.member, []).append(event.time)
            if self._rules.in_order:  # the event disturbs the whole group
                self._disturbances.setdefault("", []).append(event.time)
        if event.kind in _ENDS:
            for each in self._ended(event):
                self._apply(each)
            self._end_reading(event)
        elif event.kind not in ("join", "fault"):
            self._apply(event)

    def end(self) -> None:
        """Checks at the end that each message was settled, dead-lettered or deferred."""
        for group in self._groups.values():
            for id, automaton in group.messages.items():
                if not automaton.finished and (group.name, id) not in self._refused:
                    self._disagree(group, id, "", f"the trace ends, and it is {automaton}")

    def _ended(self, event: Event) -> Iterator[Event]:
        """Yields an event for each delivery of the process that this event ends."""
        held = self._held.get(event.member, {})
        for by, delivery in [*held.items()]:
            same_group = event.group in ("", delivery.group)
            if same_group and event.shard in ("", delivery.shard):
                if event.kind not in ("stopped", "revoke"):
                    del held[by]
                yield replace(delivery, time=event.time, kind=event.kind, detail="")

    def _end_reading(self, event: Event) -> None:
        for group in self._groups.values():
            for shard, order in group.shards.items():
                if event.group in ("", group.name) and event.shard in ("", shard):
                    order.apply(event)

    def _apply(self, event: Event) -> None:
        if event.kind in ("publish", "published") and event.detail == "dead letter":
            return
        for group in self._groups_of(event):
            automaton = group.messages.get(event.message)
            if automaton is None:
                automaton = MessageAutomaton(group.rules, self._disturbed, group.lease)
                group.messages[event.message] = automaton
            if (group.name, event.message) in self._refused:
                continue
            before = str(automaton) if event.kind in ("deliver", "settled") else ""
            try:
                automaton.apply(event)
            except Refused:
                self._disagree(group, event.message, event.shard, f"{event}, but it is {before}")
                continue
            self._note(automaton, event)
            self._check_order(group, event)

    def _groups_of(self, event: Event) -> list[_Group]:
        if event.group:
            group = self._groups.get(event.group)
            return [group] if group is not None else []
        return [group for group in self._groups.values() if group.topic == event.topic]

    def _note(self, automaton: MessageAutomaton, event: Event) -> None:
        held = self._held.setdefault(event.member, {})
        by = (event.group, event.delivery)
        if event.kind == "deliver":
            held[by] = event
        elif event.kind == "lost" or (event.kind == "settled" and event.detail in ("DONE", "LOST")):
            held.pop(by, None)
        if event.kind == "settle" and event.detail == "ACK":
            automaton.finished = True

    def _check_order(self, group: _Group, event: Event) -> None:
        problem = group.keys.apply(event) if group.ordered else None
        if problem is None and group.rules.in_order and event.shard:
            problem = group.shards.setdefault(event.shard, ShardOrder()).apply(event)
        if problem is not None:
            self._disagree(group, event.message, event.shard, f"{event}, but {problem}")

    def _disturbed(self, member: str, since: float, until: float) -> bool:
        for times in (self._disturbances.get(member, ()), self._disturbances.get("", ())):
            at = bisect_right(times, until)
            if at and times[at - 1] >= since:
                return True
        return False

    def _disagree(self, group: _Group, message: str, shard: str, text: str) -> None:
        self._refused.add((group.name, message))
        self.found.append(Disagreement(group.name, message, shard, self.events, text))


def check(trace: Iterable[Event], transport: str) -> TraceChecker:
    """Checks a whole trace against the rules of a transport."""
    events = [*trace]
    checker = TraceChecker(RULES[transport])
    checker.groups_of(events)
    for event in events:
        checker.take(event)
    checker.end()
    return checker

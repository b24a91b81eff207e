"""The simulated broker, which stores and lends messages. It outlives every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from protoflow.contract.spec import Ordering
from protoflow.counted import counted
from protoflow.error_codes import LEASE_LOST
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.testing.simulation.determinism import START
from protoflow.testing.simulation.holds import EndedLease, Hold, Holder, Witness
from protoflow.testing.simulation.loop import OUTSIDE, SimulatedLoop
from protoflow.testing.simulation.profiles import Lending, Profile
from protoflow.transport.lag import Lag
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.memory.broker import Broker, MemoryOptions, size_of
from protoflow.transports.memory.group import Entry, Group

#: Seconds for which the broker remembers a deduplication id.
_WINDOW = 120.0


class SimulatedBroker:
    """Keeps topics, groups, dead letters and leases.

    Args:
        loop: gives the time.
        profile: the transport that is simulated.
        witness: is notified of everything that becomes durable.

    Attributes:
        state: topics, groups and dead letters.
        down: whether every call fails.
        dead_letters_down: whether publishing to dead-letter topics fails.
    """

    def __init__(self, loop: SimulatedLoop, profile: Profile, witness: Witness) -> None:
        self.state = Broker()
        limit = profile.capabilities.max_message_bytes
        self.options = MemoryOptions(max_message_bytes=limit)
        self.profile = profile
        #: Whether groups receive a message again if its id was published before.
        self.repeats = True
        self.down = False
        self.dead_letters_down = False
        self.holds: dict[int, Hold] = {}
        self._ended: dict[object, EndedLease] = {}
        self._loop = loop
        self._witness = witness
        self._own: set[int] = set()
        self._places: dict[str, tuple[str, str]] = {}
        self._answers: dict[int, Action] = {}
        self._taken: dict[str, float] = {}
        self._known: dict[str, None] = {}
        #: The number of deliveries so far; also the receipt of the last one.
        self.lent = 0
        self._alarm = False

    def now(self) -> float:
        """Returns the broker's time, in seconds since the epoch."""
        return START + self._loop.now

    # Publishing.

    def place_of(self, settings: SubscriptionSettings) -> str:
        """Returns the name of the place in which retries of a group wait."""
        place = f"{settings.topic}..{settings.group}..retry"
        self._places[place] = (settings.topic, settings.group)
        return place

    def publish(self, messages: Sequence[Message]) -> list[PublishError | None]:
        """Stores messages; returns one result for each."""
        return [self._publish(message) for message in messages]

    def _problem(self, message: Message) -> PublishError | None:
        """Returns the reason why the broker refuses a message, or None."""
        topic = self.state.topics.get(message.topic)
        if self.dead_letters_down and topic is not None and topic.dead_letters is not None:
            return PublishError(f"{message.topic} is not available")
        return self.state.admit([message], self.options, [], bounded=False)[0]

    def _publish(self, message: Message) -> PublishError | None:
        if (problem := self._problem(message)) is not None:
            return problem
        if self.profile.deduplicates and (key := message.deduplication_id) is not None:
            last = self._taken.get(key)
            self._taken[key] = self._loop.now
            if last is not None and self._loop.now - last < _WINDOW:
                return None
        return self._store(message)

    def _store(self, message: Message) -> PublishError | None:
        if (place := self._places.get(message.topic)) is not None:
            self._defer(message, *place)
            return None
        if self.repeats or message.id not in self._known:
            self.state.publish([message], self.options, self.now())
        self._known[message.id] = None
        self._witness.stored(message, self.state._sequence)
        return None

    def _defer(self, message: Message, topic: str, name: str) -> None:
        group = self.state.topic(topic).groups[name]
        due = self.now() + message.delay if message.delay else 0.0
        kept = replace(message, topic=topic, delay=0.0, deduplication_id=None, mandatory=False)
        self._witness.deferred(group, kept)
        self.state._sequence += 1
        self._own.add(self.state._sequence)
        size = size_of(kept)
        group.extend([Entry(group, kept, self.state._sequence, self.now(), due, size)])
        group.wake()

    def hand_again(self, group: Group, message: Message) -> None:
        """Gives a message to one group again."""
        self.state.publish_to(group, message, self.now())

    # Lending.

    def claim(
        self, holder: Holder, limit: int, max_bytes: int
    ) -> tuple[list[Delivery], float | None]:
        """Lends messages to a holder; also returns the time at which the next one is due."""
        holder.seen = self._loop.now
        group = holder.group
        if holder not in group.members:
            return [], None  # the holder left while the request was on its way
        in_turn = self.profile.single_active and group.ordering is not Ordering.NONE
        if in_turn and self._active(group) is not holder:
            return [], None
        lent: list[Delivery] = []
        for delivery in group.claim(holder, limit, max_bytes, self.now()):
            entry: Entry = delivery.receipt
            self.lent += 1
            until = self._loop.now + holder.lease
            self.holds[self.lent] = Hold(entry, delivery, holder, until)
            copy = replace(
                delivery,
                receipt=self.lent,
                own_place=entry.sequence in self._own,
                deliveries=entry.deliveries if self.profile.capabilities.counts_deliveries else 0,
            )
            lent.append(copy)
            self._witness.handed_out(group, entry.message, holder)
        if lent:
            self._watch()
        return lent, group.next_due

    def _active(self, group: Group) -> object:
        """Returns the one member that may consume; a member silent for a lease is replaced."""
        members = [*group.members]
        first = members[0]
        silent = self.profile.lending is Lending.EACH
        if silent and len(members) > 1 and self._loop.now - first.seen >= first.lease:  # type: ignore[attr-defined]
            del group.members[first]
            group.members[first] = None
        return next(iter(group.members))

    def held(self, token: object) -> Hold | None:
        """Returns the hold of a receipt, if it is still valid."""
        hold = self.holds.get(token) if isinstance(token, int) else None
        return hold if hold is not None and hold.entry.delivery is hold.delivery else None

    def holds_receipt(self, receipt: object) -> bool:
        """Returns whether the delivery with this receipt is still lent."""
        return self.held(receipt) is not None

    def ended(self, receipt: object) -> EndedLease | None:
        """Returns the lease of a receipt, if it ended because the holder did not renew it."""
        return self._ended.get(receipt)

    def renew(self, holder: Holder, tokens: Sequence[object]) -> list[object]:
        """Extends leases; returns the receipts that are no longer held."""
        holder.seen = self._loop.now
        gone: list[object] = []
        for token in tokens:
            hold = self.held(token)
            if hold is None:
                gone.append(token)
            else:
                hold.until = self._loop.now + holder.lease
        return gone

    def give_back(self, wanted: Callable[[Hold], bool], *, killed: bool) -> None:
        """Frees the holds that `wanted` selects, so that other members can claim the messages."""
        groups: dict[Group, None] = {}
        for token in [token for token, hold in self.holds.items() if wanted(hold)]:
            hold = self.holds.pop(token)
            if hold.entry.delivery is hold.delivery:
                hold.entry.group.give_back(hold.entry, 0.0, keep_mark=killed)
                self._witness.taken_away(hold.entry.group, hold.entry.message)
                groups[hold.entry.group] = None
        for group in groups:
            group.wake()

    def leave(self, holder: Holder, *, killed: bool) -> None:
        """Removes a subscription that has ended."""
        holder.group.members.pop(holder, None)
        if killed or self.profile.lending is not Lending.EACH:
            self.give_back(lambda hold: hold.holder is holder, killed=killed)
        holder.group.wake()

    def retire(self, holder: Holder) -> None:
        """Stops lending to a subscription, which may still settle what it holds."""
        holder.group.members.pop(holder, None)
        holder.group.wake()

    def _watch(self) -> None:
        if not self._alarm and self.profile.lending is not Lending.CONNECTION and self.holds:
            self._alarm = True
            self._loop.call_later(1.0, self._expire, context=OUTSIDE)

    def _expire(self) -> None:
        self._alarm = False
        now = self._loop.now
        session = self.profile.lending is Lending.SESSION

        def ended(hold: Hold) -> bool:
            return now >= (hold.holder.seen + hold.holder.lease if session else hold.until)

        for token, hold in self.holds.items():
            if ended(hold):
                self._ended[token] = EndedLease(now, hold.holder.lease, by_clock=not session)
        for holder in dict.fromkeys(hold.holder for hold in self.holds.values() if ended(hold)):
            if holder.dead:
                holder.group.members.pop(holder, None)
        self.give_back(ended, killed=True)
        self._watch()

    # Settling.

    def settle(self, settlement: Settlement, token: object) -> SettleResult:
        """Settles one delivery."""
        hold = self.held(token)
        if hold is None or not isinstance(token, int):
            same = isinstance(token, int) and self._answers.get(token) is settlement.action
            return SettleResult.DONE if same else SettleResult.LOST
        others = [(other.receipt, self.held(other.receipt)) for other in settlement.others]
        if not all(other for _, other in others):
            return SettleResult.LOST
        problems = [problem for each in settlement.outputs if (problem := self._problem(each))]
        if problems:  # the transaction is rolled back
            refused = any(isinstance(each, PublishRefusedError) for each in problems)
            return SettleResult.REFUSED if refused else SettleResult.UNKNOWN
        self.publish(settlement.outputs)
        self._end(token, hold, settlement)
        for receipt, other in others:
            if other is not None and receipt in self.holds:
                self._end(receipt, other, settlement)
        return SettleResult.DONE

    def _end(self, token: int, hold: Hold, settlement: Settlement) -> None:
        del self.holds[token]
        entry, action = hold.entry, settlement.action
        self._answers[token] = action
        group = entry.group
        self._witness.settled(group, settlement, entry.message)
        if action is Action.ACK:
            group.finish(entry)
        else:
            if action is Action.RELEASE and self.profile.lending is Lending.SESSION:
                entry.deliveries -= 1  # other brokers count a released delivery
            if self.profile.capabilities.persists_attempts:
                entry.failures = settlement.failures
                entry.first_failure = settlement.first_failure
            due = self.now() + settlement.delay if settlement.delay > 0 else 0.0
            group.give_back(entry, due)
        if group.has_returned:
            group.wake()

    def rebalance_all(self) -> None:
        """Makes every group rebalance, on brokers whose groups do that."""

    def unfinished(self) -> list[str]:
        """Returns a text for each group that has not finished its messages."""
        return [
            f"{counted(group.size, 'message')} of {topic.name} in group {group.name}"
            for topic in self.state.topics.values()
            for group in topic.groups.values()
            if group.size
        ]

    def lag(self, topic: str, group: str) -> Lag:
        """Returns the number of messages that a group has not finished."""
        found = self.state.topic(topic).groups.get(group)
        return Lag(messages=found.size if found is not None else 0)

    # Start marks.

    def mark(self, token: object, change: int) -> int:
        """Changes the number of start marks and returns it; 0 only reads it, -1 removes all."""
        hold = self.held(token)
        if hold is None:
            if change < 0:
                return 0  # the message was settled meanwhile, and its marks were removed
            raise TransportError("the lease was lost", code=LEASE_LOST)
        hold.entry.mark = 0 if change < 0 else hold.entry.mark + change
        return hold.entry.mark

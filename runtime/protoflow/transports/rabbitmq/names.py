"""The names of exchanges and queues, and the routing of messages to them.

`/` separates the parts of names, and no topic or group contains it: `protoflow/<dead-letter topic>`
is a
dead-letter queue, `protoflow/<topic>/<group>` a group's queue, and further names of that group
begin with this name. Names for all groups begin with `protoflow/+`. So no two names are ever the
same.
"""

from __future__ import annotations

from protoflow.contract.names import fit
from protoflow.contract.topic_source import TopicSources

_LIMIT = 255  # the limit in bytes of names and of routing keys
#: The number of bits of a delay.
DELAY_BITS = 26


class Names:
    """The names below one exchange, and the queues of other programs that stand for topics."""

    def __init__(self, exchange: str, shards: int, sources: TopicSources | None = None) -> None:
        self.exchange = exchange
        self.shards = shards
        self.sources = sources or TopicSources()
        #: The prefix of queue names.
        self.owner = f"{exchange}/"
        #: The exchange to which the broker sends messages that were delivered too often.
        self.overflow = f"{exchange}/+overflow"
        #: The exchange to which only the runtime publishes messages for one group.
        self.retry = f"{exchange}/+retry"
        #: The exchange of retries that have waited; it is internal, so no client can publish to it.
        self.back = f"{exchange}/+back"
        #: The exchange and the queue for due messages without a consumer.
        self.nobody = f"{exchange}/+nobody"
        #: Hop state of messages from these exchanges is valid, because only the runtime writes
        #: there.
        self.own_places = frozenset((self.retry, self.back))

    def of(self, topic: str, group: str) -> GroupNames:
        """Returns the names of a group of a topic."""
        source = self.sources.place(topic)
        return GroupNames(f"{self.exchange}/{topic}/{group}", self.shards, source)

    def delay(self, bit: int) -> str:
        """Returns the exchange and the queue of one delay bit; -1 is the place of due messages."""
        return f"{self.exchange}/+delay-{bit}" if bit >= 0 else f"{self.exchange}/+due"

    def delayed_key(self, bits: str, topic: str) -> str:
        """Returns a delayed message's routing key, or with `*` for bits the pattern of all."""
        return f"{'.'.join(bits)}.{fit(topic, _LIMIT - 2 * DELAY_BITS)}"

    def delayed(self, topic: str, units: int) -> tuple[str, str]:
        """Returns the exchange and the routing key of a message with a delay."""
        bits = f"{units:0{DELAY_BITS}b}"
        return self.delay(units.bit_length() - 1), self.delayed_key(bits, topic)

    def dead_letters(self, topic: str) -> str:
        """Returns the queue that keeps a dead-letter topic."""
        return fit(f"{self.exchange}/{topic}", _LIMIT)

    def routing_key(self, topic: str) -> str:
        """Returns the routing key of a topic."""
        return fit(topic, _LIMIT)

    def route(self, address: str) -> tuple[str, str]:
        """Returns the exchange and the routing key of a topic, or of an address within a group."""
        if "/" in address:
            return self.retry, address
        if self.sources and (queue := self.sources.place(address)):
            return "", queue  # the default exchange, which routes to a queue by its name
        return self.exchange, self.routing_key(address)

    def group_of(self, queue: str) -> tuple[str, str] | None:
        """Returns the topic and the group of a queue or shard; None if it is another queue, or its
        name was cut."""
        parts = queue.removeprefix(self.owner).split("/")
        if not queue.startswith(self.owner) or len(parts) not in (2, 3) or "..." in queue:
            return None
        return parts[0], parts[1]


class GroupNames:
    """The names of one group of one topic.

    Attributes:
        address: the queue of the group or, if it has shards, the exchange before them. It is used
            as the topic of a message that is only for this group.
        solo: the queue of an unordered group's messages that must run alone.
        source: the queue of other programs that is consumed, too; empty: none. Then the group's own
            queue gets only its retries and replays.
    """

    def __init__(self, name: str, shards: int, source: str = "") -> None:
        self._name = name
        self.source = source
        self.shards = range(shards)
        self.address = fit(name, _LIMIT)
        self.solo = self._part("solo")

    def queue(self, shard: int) -> str:
        """Returns the queue of one shard; a single shard is the group's queue."""
        return self.address if len(self.shards) == 1 else self.shard(shard)

    @property
    def queues(self) -> list[str]:
        """Returns all consumed queues, those of the shards first."""
        return [*map(self.queue, self.shards), *((self.source,) if self.source else ())]

    def shard(self, shard: int) -> str:
        """Returns the queue of a shard if there are several."""
        return self._part(f"shard-{shard}")

    def retry(self, seconds: float) -> str:
        """Returns the queue in which retries wait for this time."""
        wait = f"{seconds:.0f}s" if seconds == int(seconds) else f"{milliseconds(seconds)}ms"
        return self._part(f"retry-{wait}")

    def lock(self, shard: int) -> str:
        """Returns the lock queue of an ordered shard: who holds its message is the consumer."""
        return self._part(f"lock-{shard}")

    def marks(self, shard: int) -> str:
        """Returns the queue of the start marks of an ordered shard."""
        return self._part(f"marks-{shard}")

    def broadcast(self, process: str) -> str:
        """Returns the queue of one process of a broadcast group."""
        return self._part(f"broadcast-{process}")

    def _part(self, part: str) -> str:
        return f"{fit(self._name, _LIMIT - len(part) - 1)}/{part}"


def milliseconds(seconds: float) -> int:
    """Returns seconds in the unit of the broker."""
    return round(seconds * 1000)

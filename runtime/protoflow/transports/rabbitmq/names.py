"""The names of exchanges and queues, and which of them a message goes to.

`/` parts the names, and no topic or group has it: `protoflow/<dead-letter topic>` is a
dead-letter queue, `protoflow/<topic>/<group>` a group's queue, and what belongs to that
group lies below it; what belongs to all begins with `protoflow/+`. So no two of them are ever
the same.
"""

from __future__ import annotations

from protoflow.contract.names import fit

_LIMIT = 255  # bytes, of names and of routing keys
#: How many bits a delay has.
DELAY_BITS = 26


class Names:
    """The names below one exchange."""

    def __init__(self, exchange: str, shards: int) -> None:
        self.exchange = exchange
        self.shards = shards
        #: How the names of queues begin.
        self.owner = f"{exchange}/"
        #: Where the broker itself puts what was delivered too often.
        self.overflow = f"{exchange}/+overflow"
        #: Where the runtime, and nobody else, publishes what a group is to get again.
        self.retry = f"{exchange}/+retry"
        #: Where what waited long enough comes back; internal, so nobody can publish there.
        self.back = f"{exchange}/+back"
        #: The exchange and the queue for what is due and not wanted.
        self.nobody = f"{exchange}/+nobody"
        #: Hop state is believed of what comes by these, for only the runtime writes there.
        self.own_places = frozenset((self.retry, self.back))

    def of(self, topic: str, group: str) -> GroupNames:
        """The names of what belongs to a group of a topic."""
        return GroupNames(f"{self.exchange}/{topic}/{group}", self.shards)

    def delay(self, bit: int) -> str:
        """The exchange and the queue of one bit of delays; -1 is where they are due."""
        return f"{self.exchange}/+delay-{bit}" if bit >= 0 else f"{self.exchange}/+due"

    def delayed_key(self, bits: str, topic: str) -> str:
        """The routing key of a delayed message, or with `*` for bits the pattern of all."""
        return f"{'.'.join(bits)}.{fit(topic, _LIMIT - 2 * DELAY_BITS)}"

    def delayed(self, topic: str, units: int) -> tuple[str, str]:
        """The exchange and the routing key of a message with a delay."""
        bits = f"{units:0{DELAY_BITS}b}"
        return self.delay(units.bit_length() - 1), self.delayed_key(bits, topic)

    def dead_letters(self, topic: str) -> str:
        """The queue that keeps a dead-letter topic."""
        return fit(f"{self.exchange}/{topic}", _LIMIT)

    def routing_key(self, topic: str) -> str:
        """The routing key of a topic."""
        return fit(topic, _LIMIT)

    def route(self, address: str) -> tuple[str, str]:
        """The exchange and the routing key of a topic, or of an address within a group."""
        if "/" in address:
            return self.retry, address
        return self.exchange, self.routing_key(address)

    def group_of(self, queue: str) -> tuple[str, str] | None:
        """The topic and the group whose queue, or shard, this is; None if it is no such, or
        its name was cut."""
        parts = queue.removeprefix(self.owner).split("/")
        if not queue.startswith(self.owner) or len(parts) not in (2, 3) or "..." in queue:
            return None
        return parts[0], parts[1]


class GroupNames:
    """The names of what belongs to one group of one topic.

    Attributes:
        address: the queue of the group or, if it has shards, the exchange before them. It stands
            for the topic of a message that is for this group alone.
        solo: the queue of messages of an unordered group that are to be run alone.
    """

    def __init__(self, name: str, shards: int) -> None:
        self._name = name
        self.shards = range(shards)
        self.address = fit(name, _LIMIT)
        self.solo = self._part("solo")

    def queue(self, shard: int) -> str:
        """The queue of one shard; where there is one, it is the group's."""
        return self.address if len(self.shards) == 1 else self.shard(shard)

    def shard(self, shard: int) -> str:
        """The queue of a shard where there are several."""
        return self._part(f"shard-{shard}")

    def retry(self, seconds: float) -> str:
        """The queue where retries wait so long."""
        wait = f"{seconds:.0f}s" if seconds == int(seconds) else f"{milliseconds(seconds)}ms"
        return self._part(f"retry-{wait}")

    def lock(self, shard: int) -> str:
        """The queue whose one message makes its holder the consumer of an ordered shard."""
        return self._part(f"lock-{shard}")

    def marks(self, shard: int) -> str:
        """The queue of the start marks of an ordered shard."""
        return self._part(f"marks-{shard}")

    def broadcast(self, process: str) -> str:
        """The queue of one process of a broadcast group."""
        return self._part(f"broadcast-{process}")

    def _part(self, part: str) -> str:
        return f"{fit(self._name, _LIMIT - len(part) - 1)}/{part}"


def milliseconds(seconds: float) -> int:
    """Seconds as the broker counts them."""
    return round(seconds * 1000)

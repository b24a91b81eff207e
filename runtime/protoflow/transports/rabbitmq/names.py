"""The names of exchanges and queues, and which of them a message goes to.

`/` parts the names, and no topic or group has it: `protoflow/<dead-letter topic>` is a
dead-letter queue, `protoflow/<topic>/<group>` a group's queue, and what belongs to that
group lies below it. So no two of them are ever the same.
"""

from __future__ import annotations

from protoflow.naming import fit

_LIMIT = 255  # bytes, of names and of routing keys
_EXCHANGE_MARK = "@"


class Names:
    """The names below one exchange."""

    def __init__(self, exchange: str, shards: int) -> None:
        self.exchange = exchange
        self.shards = shards
        #: How the names of queues begin.
        self.owner = f"{exchange}/"
        #: Where the broker itself puts what was delivered too often.
        self.overflow = f"{exchange}.overflow"

    def group(self, topic: str, group: str) -> str:
        """The queue of a group or, if it has shards, the exchange before them."""
        return fit(f"{self.exchange}/{topic}/{group}", _LIMIT)

    def queue(self, topic: str, group: str, shard: int) -> str:
        """The queue of one shard."""
        return self.group(topic, group) if self.shards == 1 else self.shard(topic, group, shard)

    def shard(self, topic: str, group: str, shard: int) -> str:
        """The queue of a shard where there are several."""
        return self._part(topic, group, f"shard-{shard}")

    def rung(self, topic: str, group: str, seconds: float) -> str:
        """The queue where retries of a group wait."""
        wait = f"{seconds:.0f}s" if seconds == int(seconds) else f"{milliseconds(seconds)}ms"
        return self._part(topic, group, f"retry-{wait}")

    def lock(self, topic: str, group: str, shard: int) -> str:
        """The queue that the one active consumer of an ordered shard holds."""
        return self._part(topic, group, f"lock-{shard}")

    def broadcast(self, topic: str, group: str, process: str) -> str:
        """The queue of one process of a broadcast group."""
        return self._part(topic, group, f"broadcast-{process}")

    def dead_letters(self, topic: str) -> str:
        """The queue that keeps a dead-letter topic."""
        return fit(f"{self.exchange}/{topic}", _LIMIT)

    def to_group(self, topic: str, group: str) -> str:
        """The address of a group alone; stands for the topic of a message."""
        name = self.group(topic, group)
        return name if self.shards == 1 else _EXCHANGE_MARK + name

    def routing_key(self, topic: str) -> str:
        """The routing key of a topic."""
        return fit(topic, _LIMIT)

    def route(self, address: str) -> tuple[str, str]:
        """The exchange and the routing key of a topic, a queue or a group's address."""
        if address.startswith(_EXCHANGE_MARK):
            return address[1:], ""
        if "/" in address:
            return "", address
        return self.exchange, self.routing_key(address)

    def owns(self, queue: str) -> bool:
        """Whether a queue is one of these."""
        return queue.startswith(self.owner)

    def _part(self, topic: str, group: str, part: str) -> str:
        return f"{fit(f'{self.exchange}/{topic}/{group}', _LIMIT - len(part) - 1)}/{part}"


def milliseconds(seconds: float) -> int:
    """Seconds as the broker counts them."""
    return round(seconds * 1000)

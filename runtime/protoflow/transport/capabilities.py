"""What a transport claims to be able to do."""

from __future__ import annotations

from protoflow.dataclass_record import dataclass_record
from protoflow.message import Message


@dataclass_record
class Capabilities:
    """What a transport can do. Each claim is proved by the acceptance suite.

    Attributes:
        at_least_once: an unsettled delivery comes again.
        durable: messages survive a restart of every process, the broker's included.
        groups: each group gets every message, its members share them.
        processes: several processes may share one group.
        per_key: order per key over all processes of a group.
        per_partition: order per partition over all processes of a group.
        retains: messages published before a group exists reach it with start EARLIEST.
        delayed_publish: `Message.delay` is kept.
        max_delay: the longest delay in seconds that one publish can have; None is any.
        broker_retry: waits longer than `retry_in_place` are kept by the broker.
        retry_lateness: seconds by which such a wait may be too long.
        persists_attempts: failed runs survive the process at every NACK.
        counts_deliveries: `Delivery.deliveries` is the broker's count.
        atomic: `Settlement.outputs` and the settlement become visible together.
        atomic_on_demand: ... but only where the policy says `atomic`, for it has a price.
        dead_letters: dead letters can be listed, shown, replayed, purged and counted.
        ordered_replays: a replay to an ordered group runs where its key runs, so never beside
            another message of its key. Without: replays keep their own order, and one may run in
            one process while a new message of its key runs in another.
        tombstones: `payload=None` arrives as None.
        leases: a delivery not settled in time is given to another process.
        lag: the transport knows how much waits in a group.
        reads_topics: a topic can be read without joining a group (`TopicReader`).
        broadcast: ephemeral groups, one a process.
        max_message_bytes: what the broker refuses beyond; None is unknown or unlimited.
        proves_killers: start marks survive the process (`Isolation`), so a message that kills
            it is proved and dead-lettered. Without: such a message is run alone, with growing
            waits, and never dead-lettered for having been handed out too often.
    """

    at_least_once: bool = True
    durable: bool = False
    groups: bool = True
    processes: bool = False
    per_key: bool = False
    per_partition: bool = False
    retains: bool = False
    delayed_publish: bool = False
    max_delay: float | None = None
    broker_retry: bool = False
    retry_lateness: float = 1.0
    persists_attempts: bool = False
    counts_deliveries: bool = False
    atomic: bool = False
    atomic_on_demand: bool = False
    dead_letters: bool = False
    ordered_replays: bool = False
    tombstones: bool = True
    leases: bool = False
    lag: bool = False
    reads_topics: bool = False
    broadcast: bool = False
    max_message_bytes: int | None = None
    proves_killers: bool = False


def delay_problem(message: Message, capabilities: Capabilities) -> str | None:
    """Why the transport cannot keep the delay of a message; None: it can."""
    what = f"a message to {message.topic} is to be delayed by {message.delay:g} s, but"
    if not capabilities.delayed_publish:
        return f"{what} the transport has no delayed publish; publish it when it is due"
    if capabilities.max_delay is not None and message.delay > capabilities.max_delay:
        return f"{what} the transport allows {capabilities.max_delay:g} s; publish it later"
    return None

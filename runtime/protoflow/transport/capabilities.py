"""The claims of a transport about its abilities."""

from __future__ import annotations

from protoflow.dataclass_record import dataclass_record
from protoflow.message import Message


@dataclass_record
class Capabilities:
    """What a transport can do; the acceptance suite proves each claim.

    Attributes:
        at_least_once: the broker redelivers an unsettled message.
        durable: messages survive a restart of every process, including the broker.
        groups: each group gets every message, and its processes share them.
        processes: several processes may share one group.
        per_key: messages of one key are handled in order, over all processes of a group.
        per_partition: messages of one partition are handled in order, in the same way.
        retains: a new group with start EARLIEST gets earlier messages.
        delayed_publish: a message is delivered after its `Message.delay`.
        max_delay: the longest delay of a message in seconds; None: unlimited.
        broker_retry: the broker keeps retries that wait longer than `retry_in_place`.
        retry_lateness: seconds by which such a retry may be late.
        persists_attempts: every NACK stores the number of failed runs at the broker.
        counts_deliveries: `Delivery.deliveries` is the delivery count of the broker.
        atomic: outputs and settlement become visible together.
        atomic_on_demand: `atomic` costs throughput, so it needs the policy `atomic`.
        dead_letters: dead letters can be listed, shown, replayed, purged and counted.
        ordered_replays: a replay to an ordered group never runs at the same time as another
            message of its key. Without it, replays keep their own order only.
        tombstones: `payload=None` arrives as None, not as empty bytes.
        leases: another process gets a delivery that is not settled in time.
        lag: the transport reports how many messages wait in a group.
        reads_topics: a topic can be read without joining a group (`TopicReader`).
        keeps_settled: a topic keeps messages that every group has settled, for its retention.
        broadcast: each process can have its own group, which ends with the process.
        max_message_bytes: the largest message; None: unknown or unlimited.
        proves_killers: start marks survive the process (`Isolation`), so a process killer is
            proved and dead-lettered. Without it, a suspect runs alone with growing waits and is
            not dead-lettered.
        sources: topics can be consumed from existing places of other programs.
        ordered_sources: such a topic keeps the order that `per_key` and `per_partition` promise.
        ordering_option: the transport option with which it claims `per_key` or `per_partition`, if
            it does not without it.
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
    keeps_settled: bool = False
    broadcast: bool = False
    max_message_bytes: int | None = None
    proves_killers: bool = False
    sources: bool = False
    ordered_sources: bool = False
    ordering_option: str = ""


def delay_problem(message: Message, capabilities: Capabilities) -> str | None:
    """Returns why the transport cannot delay a message; None if it can."""
    what = f"a message to {message.topic} is to be delayed by {message.delay:g} s, but"
    if not capabilities.delayed_publish:
        return f"{what} the transport has no delayed publish; publish it when it is due"
    if capabilities.max_delay is not None and message.delay > capabilities.max_delay:
        return f"{what} the transport allows {capabilities.max_delay:g} s; publish it later"
    return None
